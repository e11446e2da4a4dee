"""The baseline that a language model has to beat: TF-IDF words with ridge regression."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from pricer.core.items import Item


def predict_with_ridge(train: Sequence[Item], items: Sequence[Item]) -> list[float]:
    """Prices in dollars for `items`, from a ridge regression of ln(price + 1) on the TF-IDF of the training texts.

    Numbers are words here ("486", "8"), single characters too. alpha was chosen on the validation items of the
    embedded data.
    """
    model = make_pipeline(
        TfidfVectorizer(min_df=2, max_features=200_000, sublinear_tf=True, token_pattern=r"\w+"),  # noqa: S106
        Ridge(alpha=0.3, solver="sparse_cg", random_state=0),
    )
    try:
        model.fit([item.text for item in train], np.log1p([item.price for item in train]))
    except ValueError:
        # No word occurs twice: there is nothing to learn from, and the mean of the logs is what is left.
        return [float(np.expm1(np.mean(np.log1p([item.price for item in train]))))] * len(items)
    # A price below zero is no price; extrapolation can produce one.
    return [max(0.0, float(price)) for price in np.expm1(model.predict([item.text for item in items]))]
