"""`pricer predict`: price texts with one checkpoint of a run, each with an interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pricer.commands.parts.checkpoints import choose_checkpoints, find_calibration, refuse_foreign
from pricer.commands.parts.opening import load_scorer, predict_batches
from pricer.commands.parts.session import Scorer
from pricer.commands.parts.setup import Setup, prepare_to_ask
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.config import DataConfig
from pricer.core.calibration import Calibration, CalibrationGroup
from pricer.core.checkpoints import BEST, Checkpoint
from pricer.core.intervals import LEVELS, Interval, raw_interval
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.core.units import PriceUnit
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Predicted:
    """The result of `pricer predict`: Items and their Predictions, in the order of the texts. `calibration` corrects
    their intervals; it is None if the checkpoint has too few answers to validation items.
    """

    run: Run
    checkpoint: Checkpoint
    estimator: str
    unit: PriceUnit
    items: Sequence[Item]
    predictions: Sequence[Prediction]
    calibration: Calibration | None

    def intervals(self, item: Item, prediction: Prediction) -> dict[float, Interval | None]:
        """An item's intervals by level, corrected if possible; None if it has no distribution or no price."""
        if self.calibration is None:
            return {level: raw_interval(prediction, level) for level in LEVELS}
        return self.calibration.correct(prediction, item.category)

    def corrected_by(self, item: Item, prediction: Prediction) -> CalibrationGroup | None:
        """The group of validation items that corrected an item's intervals; None if they are raw or if it has none."""
        return self.calibration.find_group(prediction, item.category) if self.calibration else None


def predict(run: Run, which: str | None, read: Callable[[DataConfig], Sequence[Item]], watcher: Watcher) -> Predicted:
    """Price the Items that `read` returns with the checkpoint that `which` names. None is the picked one or, if none
    was picked, the last one. The texts and the correction of intervals are read and checked before any weight is
    loaded.
    """
    config = run.config()
    items = read(config.data)
    which = which or (BEST if run.store.tagged(BEST) else None)
    (checkpoint,) = choose_checkpoints(run, which or "last")
    if which is None and len(run.store.checkpoints()) > 1:
        watcher.note(f"no best checkpoint of {run.name} has been picked yet: this is the last one, {checkpoint.name}")
    setup = prepare_to_ask(config, checkpoint, watcher.preparing)
    refuse_foreign(checkpoint, setup, any_data=True)
    run.pin_config(setup.config)
    calibration = find_calibration(run, checkpoint.id, setup.spec_of_other_data("", 0, None))
    adapter = run.store.fetch(checkpoint)
    scorer = load_scorer(setup, run)
    scorer.use(adapter)
    progress = partial(ScoringProgress(watcher, len(items)).reach, checkpoint.name)
    predictions = predict_items(scorer, setup, items, progress)
    unit = setup.template.price_format.price_unit
    return Predicted(run, checkpoint, setup.config.eval.estimator, unit, items, predictions, calibration)


def predict_items(
    scorer: Scorer, setup: Setup, items: Sequence[Item], progress: Callable[[int], None]
) -> list[Prediction]:
    """One Prediction per Item, in their order. Ids may repeat. `progress` receives the number made so far."""
    found: dict[int, Prediction] = {}
    for batch, predictions in predict_batches(scorer, setup.prompts(items), setup.batch_tokens):
        found.update(zip(batch, predictions, strict=True))
        progress(len(found))
    return [found[index] for index in range(len(items))]
