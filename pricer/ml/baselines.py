"""Baselines for comparison: ridge regressions on words, and on the untrained base's embeddings."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pricer.core.items import Item


def predict_with_ridge(train: Sequence[Item], items: Sequence[Item], step: float = 1.0) -> list[float]:
    """Prices for `items`, from a ridge regression of ln(price + step) on the TF-IDF of the training texts.

    Numbers ("486") and single characters ("8") are words too. alpha was chosen on the validation items of the bundled
    data.
    """
    model = make_pipeline(
        TfidfVectorizer(min_df=2, max_features=200_000, sublinear_tf=True, token_pattern=r"\w+"),  # noqa: S106
        Ridge(alpha=0.3, solver="sparse_cg", random_state=0),
    )
    logs = np.log1p(np.array([item.price for item in train]) / step)
    try:
        model.fit([item.text for item in train], logs)
    except ValueError:
        # No word occurs twice, so there are no features: predict the mean of the logs.
        return [float(step * np.expm1(np.mean(logs)))] * len(items)
    # Extrapolation can give negative prices.
    return [max(0.0, float(price)) for price in step * np.expm1(model.predict([item.text for item in items]))]


def predict_with_embeddings(
    train_embeddings: np.ndarray, train_prices: Sequence[float], embeddings: np.ndarray, step: float = 1.0
) -> list[float]:
    """Prices, one per row of `embeddings`, from a ridge regression of ln(price + step) on embeddings, each dimension
    scaled to unit variance; the penalty is the best of seven by leave-one-out error on the training rows.

    Predictions are clipped to the range of `train_prices`: thousands of dimensions extrapolate wildly.
    """
    logs = np.log1p(np.asarray(train_prices) / step)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 5, 7)))
    # In double precision: the dimensions are nearly collinear, and a penalty of 0.1 is lost in float32's rounding.
    model.fit(train_embeddings.astype(np.float64), logs)
    predicted = np.clip(model.predict(embeddings.astype(np.float64)), logs.min(), logs.max())
    return [float(price) for price in step * np.expm1(predicted)]
