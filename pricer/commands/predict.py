"""`pricer predict`: prices for texts, each with an interval, by one checkpoint of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pricer.commands.parts.checkpoints import choose_checkpoints, refuse_foreign
from pricer.commands.parts.session import Scorer, load_scorer
from pricer.commands.parts.setup import Setup, prepare_to_ask
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.config import DataConfig
from pricer.core.checkpoints import Checkpoint
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.ml.batches import batches_of
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Predicted:
    """What `pricer predict` returns: Items and their Predictions, in the order of the texts."""

    run: Run
    checkpoint: Checkpoint
    estimator: str
    items: Sequence[Item]
    predictions: Sequence[Prediction]


def predict(run: Run, which: str | None, read: Callable[[DataConfig], Sequence[Item]], watcher: Watcher) -> Predicted:
    """Price the Items that `read` returns, by the checkpoint that `which` names. None is the picked one or, if none was
    picked, the last one. Texts are read and checked before a weight is loaded.
    """
    config = run.config()
    items = read(config.data)
    checkpoint = _choose(run, which, watcher)
    setup = prepare_to_ask(config)
    refuse_foreign(checkpoint, setup, checked=("prompt", "base"))
    run.pin_config(setup.config)
    adapter = run.store.fetch(checkpoint)
    scorer = load_scorer(setup, run)
    scorer.use(adapter)
    progress = ScoringProgress(watcher, len(items))
    predictions = predict_items(scorer, setup, items, lambda answers: progress.add(checkpoint.name, answers))
    return Predicted(run, checkpoint, setup.config.eval.estimator, items, predictions)


def predict_items(
    scorer: Scorer, setup: Setup, items: Sequence[Item], report: Callable[[int], None]
) -> list[Prediction]:
    """One Prediction per Item, in their order; ids may repeat. `report` is told how many answers a batch had."""
    prompts = setup.prompts(items)
    found: dict[int, Prediction] = {}
    for batch in batches_of([len(prompt.ids) for prompt in prompts], setup.batch_tokens):
        found.update(zip(batch, scorer.predict([prompts[index] for index in batch]), strict=True))
        report(len(batch))
    return [found[index] for index in range(len(items))]


def _choose(run: Run, which: str | None, watcher: Watcher) -> Checkpoint:
    if which is None and run.store.tagged("best") is None:
        (last,) = choose_checkpoints(run, "last")
        watcher.note(f"no best checkpoint of {run.name} has been picked yet: this is the last one, {last.name}")
        return last
    (chosen,) = choose_checkpoints(run, which or "best")
    return chosen
