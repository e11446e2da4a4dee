"""`pricer predict`: prices for texts, each with an interval, by one checkpoint of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pricer.commands.evaluate import Watcher, choose, load_scorer, refuse_foreign
from pricer.commands.parts.predictions import Scorer
from pricer.commands.parts.setup import Setup, prepare_to_ask
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
    """Price the Items that `read` finds, by the checkpoint that `which` names (None: best, or the last one if none was
    picked). Texts are read and checked before a weight is loaded.
    """
    config = run.config()
    items = read(config.data)
    checkpoint = _chosen(run, which, watcher)
    setup = prepare_to_ask(config)
    refuse_foreign(checkpoint, setup, checked=("prompt", "base"))
    run.pin_config(setup.config)
    folder = run.store.fetch(checkpoint)
    scorer = load_scorer(setup, run)
    scorer.use(folder)
    predictions = answer(scorer, setup, items, lambda done: watcher.scoring(checkpoint.name, done, len(items)))
    return Predicted(run, checkpoint, setup.config.eval.estimator, items, predictions)


def answer(scorer: Scorer, setup: Setup, items: Sequence[Item], done: Callable[[int], None]) -> list[Prediction]:
    """One Prediction per Item, in their order, whatever their ids; `done` is told how many there are so far."""
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in items])
    found: dict[int, Prediction] = {}
    for batch in batches_of([len(prompt.ids) for prompt in prompts], setup.batch_tokens):
        found.update(zip(batch, scorer.predict([prompts[index] for index in batch]), strict=True))
        done(len(found))
    return [found[index] for index in range(len(items))]


def _chosen(run: Run, which: str | None, watcher: Watcher) -> Checkpoint:
    if which is None and run.store.tagged("best") is None:
        (last,) = choose(run, "last")
        watcher.note(f"no best checkpoint of {run.name} has been picked yet: this is the last one, {last.name}")
        return last
    (chosen,) = choose(run, which or "best")
    return chosen
