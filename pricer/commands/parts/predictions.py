"""Answers of checkpoints: asked in batches, saved batch by batch, and none asked twice."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.core.race_record import RaceRecord
from pricer.ml.batches import batches_of
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run


class Scorer(Protocol):
    """Answers batches of prompts with one checkpoint at a time."""

    def use(self, adapter: Path) -> None:
        """Answer with this adapter from now on."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What every checkpoint is asked: one prompt per Item, in batches of at most `batch_tokens` tokens."""

    spec: EvalSpec
    items: Sequence[Item]
    prompts: Sequence[TokenizedPrompt]
    batch_tokens: int


def answers(
    run: Run, checkpoint: Checkpoint, questions: Questions, scorer: Callable[[], Scorer], stop: int | None = None
) -> Iterator[list[Prediction]]:
    """The Predictions of a checkpoint on the items up to, not including, `stop` (None: all) in batches; first the saved
    ones as they are. A batch is saved whole or not at all, so going on makes the same batches, and the same answers, as
    never having stopped.
    """
    saved = saved_answers(run, checkpoint, questions)
    yield from saved
    left = _batches(questions, {p.item_id for batch in saved for p in batch}, stop)
    if not left:
        return
    predict = scorer().predict
    for batch in left:
        predictions = predict([questions.prompts[index] for index in batch])
        run.evaluations.add_predictions(checkpoint.id, questions.spec, predictions)
        yield predictions


def saved_answers(run: Run, checkpoint: Checkpoint, questions: Questions) -> list[list[Prediction]]:
    """The saved Predictions of a checkpoint, in their batches. Unless they are whole, those that were batched by
    another token budget are dropped: an evaluation is made of one kind of batches.
    """
    saved = run.evaluations.predictions(checkpoint.id, questions.spec)
    batches = [[p.item_id for p in batch] for batch in saved]
    whole = sorted(prompt.item_id for prompt in questions.prompts)
    if sorted(itertools.chain(*batches)) != whole and not _are_made_here(batches, run, questions):
        run.evaluations.drop_predictions(checkpoint.id, questions.spec)
        return []
    return saved


def existing(run: Run, name: str, spec: EvalSpec) -> Evaluation | None:
    """The evaluation of that name, if there is one with every metric of today and the scores behind them."""
    evaluation = run.evaluations.find(name, spec)
    return evaluation if evaluation and evaluation.is_complete and run.evaluations.scores(name, spec) else None


def race_of(run: Run, spec: EvalSpec) -> RaceRecord | None:
    """The race of a run under that spec, if its newest was."""
    race = run.race()
    return race if race and race.spec_fingerprint == spec.fingerprint else None


def _are_made_here(batches: list[list[str]], run: Run, questions: Questions) -> bool:
    """Whether each is the next batch of what was left then: of all items or, in a race, of those up to a stop of it."""
    race = race_of(run, questions.spec)
    done: set[str] = set()
    while batches:
        for stop in (*(race.stops if race else ()), None):
            expected = [[questions.prompts[i].item_id for i in batch] for batch in _batches(questions, done, stop)]
            pairs = zip(batches, expected, strict=False)
            same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
            if same:
                break
        else:
            return False
        done.update(itertools.chain(*batches[:same]))
        batches = batches[same:]
    return True


def _batches(questions: Questions, done: Collection[str], stop: int | None) -> list[list[int]]:
    """Indices of the prompts before `stop` that are not `done`. Whole batches that are done leave the others alone."""
    prompts = questions.prompts
    left = [index for index, prompt in enumerate(prompts[:stop]) if prompt.item_id not in done]
    batches = batches_of([len(prompts[index].ids) for index in left], questions.batch_tokens)
    return [[left[position] for position in batch] for batch in batches]
