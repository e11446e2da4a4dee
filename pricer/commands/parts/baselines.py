"""Baselines that a checkpoint has to beat on the same items: a constant, two regressions, and the untuned base."""

from collections.abc import Callable, Sequence

from pricer.commands.parts.session import UNTUNED, EvaluationSession, Scorer
from pricer.commands.parts.setup import Setup
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.core.regression import EmbeddingRegression

# Maximum number of training items to embed. More would take as long as training and improve a ridge little.
_MAX_EMBEDDED = 5000


def _train_median(session: EvaluationSession, setup: Setup) -> list[Prediction]:
    return _as_predictions(session, [setup.answers.train_median] * len(session.items))


def _step(session: EvaluationSession) -> float:
    return session.spec.price_unit.step


def _words(session: EvaluationSession, setup: Setup) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_ridge

    return _as_predictions(session, predict_with_ridge(setup.items.train, session.items, _step(session)))


def _embeddings(session: EvaluationSession, setup: Setup) -> list[Prediction]:
    base = session.load()
    embeddings = base.embed(session.prompts, setup.batch_tokens)
    return _as_predictions(session, _regression(session, setup, base, embeddings.shape[1]).prices(embeddings))


def _regression(session: EvaluationSession, setup: Setup, base: Scorer, size: int) -> EmbeddingRegression:
    """The regression on the base's embeddings of training items. It is kept for other splits and limits, because to
    embed the training items takes as long as to score many checkpoints.
    """
    from pricer.ml.baselines import fit_on_embeddings

    kept, spec = session.run.evaluations, setup.spec(Split.TRAIN, None)
    regression = kept.regression(spec, size)
    if regression is None:
        train = setup.items.train[:_MAX_EMBEDDED]

        def reach(done: int) -> None:
            session.watcher.preparing("embedding training items", f"{done:,} of {len(train):,}")

        embeddings = base.embed(setup.prompts(train), setup.batch_tokens, reach)
        regression = fit_on_embeddings(embeddings, [item.price for item in train], _step(session))
        kept.keep_regression(spec, regression)
    return regression


def _untuned(session: EvaluationSession, _: Setup) -> list[Prediction]:
    return session.answer_base()


def _as_predictions(session: EvaluationSession, prices: Sequence[float]) -> list[Prediction]:
    digits = session.spec.price_unit.error_digits
    return [
        Prediction(item.id, f"{price:.{digits}f}", price) for item, price in zip(session.items, prices, strict=True)
    ]


BASELINES: dict[str, Callable[[EvaluationSession, Setup], list[Prediction]]] = {
    "train median": _train_median,
    "tf-idf + ridge": _words,
    "base embeddings + ridge": _embeddings,
    UNTUNED: _untuned,
}
"""How each baseline predicts the prices of a session's items, by name, in the order in which tables show them."""


_NEED_TRAINING_ITEMS = ("tf-idf + ridge", "base embeddings + ridge")


def evaluate_baselines(session: EvaluationSession, setup: Setup) -> list[Evaluation]:
    """The Evaluation of each baseline: read if it exists, otherwise made. Only baselines that need the base load it.
    Without training items in the setup, the baselines that need them are left out, with a note.
    """
    evaluations = []
    left_out = [] if setup.items.train else [name for name in BASELINES if name in _NEED_TRAINING_ITEMS]
    if left_out:
        session.watcher.note(f"left out, because they need the training items: {', '.join(left_out)}")
    for name, predict in BASELINES.items():
        if name in left_out:
            continue
        folder = Candidate(name).key
        evaluation = session.find(folder)
        if evaluation is None:
            evaluation = session.finish(folder, Candidate(name), predict(session, setup))
        session.watcher.scored(evaluation)
        evaluations.append(evaluation)
    return evaluations
