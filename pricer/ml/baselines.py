"""Baselines for comparison: ridge regressions on words, and on the untrained base's embeddings."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pricer.core.items import Item
from pricer.core.regression import EmbeddingRegression


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


def fit_on_embeddings(embeddings: np.ndarray, prices: Sequence[float], step: float = 1.0) -> EmbeddingRegression:
    """A ridge regression of ln(price / step + 1) on embeddings (items, hidden size) of training items, each dimension
    scaled to unit variance; the penalty is the best of seven by leave-one-out error.
    """
    logs = np.log1p(np.asarray(prices) / step)
    scaler, ridge = StandardScaler(), RidgeCV(alphas=np.logspace(-1, 5, 7))
    # In double precision: the dimensions are nearly collinear, and a penalty of 0.1 is lost in float32's rounding.
    ridge.fit(scaler.fit_transform(embeddings.astype(np.float64)), logs)
    weights = ridge.coef_ / scaler.scale_
    return EmbeddingRegression(
        weights=tuple(weights.tolist()),
        intercept=float(ridge.intercept_ - weights @ scaler.mean_),
        low=float(logs.min()),
        high=float(logs.max()),
        step=step,
    )
