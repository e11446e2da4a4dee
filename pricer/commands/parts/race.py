"""`pricer eval --race`: checkpoints are scored on growing blocks of items, and those that cannot win no further."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pricer.commands.evaluate import Evaluated, Watcher, fetched_ahead, score_checkpoints, score_run
from pricer.commands.parts.predictions import Questions, Scorer, answers, existing, race_of, saved_answers
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation, score_predictions
from pricer.core.halving import Block, Race
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.core.race_record import Dropout, RaceRecord
from pricer.errors import RunError
from pricer.stores.runs import Run


def race_run(run: Run, limit: int | None, watcher: Watcher) -> Evaluated:
    """Race all checkpoints of a run on its validation items, by the settings of its config."""
    result = score_run(run, "all", Split.VAL, limit, watcher, race_checkpoints)
    return replace(result, race=run.race())


def race_checkpoints(
    run: Run, checkpoints: Sequence[Checkpoint], questions: Questions, load: Callable[[], Scorer], watcher: Watcher
) -> Iterator[Evaluation]:
    """Race the checkpoints for the lowest mean absolute error, write race.json, and finish the survivors: their
    Evaluations, and those that others had before. Who dropped out keeps its answers and gets no Evaluation.

    What is decided depends on the answers alone, which are saved, so a race that was interrupted goes on as the same.
    """
    load = functools.cache(load)
    heat = _Heat(run, checkpoints, questions, load, watcher)
    heat.run_to_the_end()
    survivors = set(heat.race.survivors)
    whole = [c for c in checkpoints if c.id in survivors or existing(run, c.id, questions.spec)]
    yield from score_checkpoints(run, whole, questions, load, _Later(watcher, heat.answered))
    heat.write(winner=heat.race.winner)


class _Heat:
    """A Race with what it takes to score its blocks."""

    def __init__(
        self,
        run: Run,
        checkpoints: Sequence[Checkpoint],
        questions: Questions,
        load: Callable[[], Scorer],
        watcher: Watcher,
    ) -> None:
        config = run.config().eval
        self._alpha, self._budget = config.race_alpha, config.race_budget
        try:
            self.race = Race([c.id for c in checkpoints], len(questions.items), self._alpha, self._budget)
        except ValueError as error:
            raise RunError(f"these checkpoints cannot race: {error}", "pricer eval --all-checkpoints") from None
        self.answered = 0
        self._run = run
        self._by_revision = {checkpoint.id: checkpoint for checkpoint in checkpoints}
        self._questions = questions
        self._load = load
        self._watcher = watcher
        self._adapters: dict[str, Path] = {}
        before = race_of(run, questions.spec)
        self._stops = set(before.stops if before else ())

    def run_to_the_end(self) -> None:
        """Score block by block until the race is over."""
        while not self.race.is_over:
            block = self.race.next_block()
            if block.stop not in self._stops:
                # Before any batch that ends there: what finds the batches later must know how they were made.
                self._stops.add(block.stop)
                self.write(winner=None)
            gone = len(self.race.dropped)
            self._score(block)
            for out in self.race.dropped[gone:]:
                name, leader = self._by_revision[out.name].name, self._by_revision[out.leader].name
                why = "surely beaten" if out.is_beaten else "cut for the budget"
                self._watcher.note(f"{name}  out after {out.n:,} items, ${out.margin:,.2f} behind {leader}: {why}")

    def write(self, winner: str | None) -> None:
        """Write race.json: how the race stands, or stood in the end if there is a winner."""
        items = len(self._questions.items)
        share = self.race.share_of_work
        if winner is not None:  # and on the rest of the items, too
            share += len(self.race.survivors) * (items - self.race.n) / (len(self._by_revision) * items)
        steps = {revision: checkpoint.step for revision, checkpoint in self._by_revision.items()}
        dropped = tuple(
            Dropout(
                step=steps[out.name],
                revision=out.name,
                n=out.n,
                leader=steps[out.leader],
                margin=out.margin,
                at_least=out.at_least,
                why="beaten" if out.is_beaten else "cut",
            )
            for out in self.race.dropped
        )
        self._run.write_race(
            RaceRecord(
                spec_fingerprint=self._questions.spec.fingerprint,
                alpha=self._alpha,
                budget=self._budget,
                items=items,
                stops=tuple(sorted(self._stops)),
                winner=winner,
                dropped=dropped,
                share_of_work=share,
            )
        )

    def _score(self, block: Block) -> None:
        """Let each candidate answer what it lacks of a block, and judge it by all that it has answered there."""
        length = block.stop - block.start
        total = self.answered + len(block.candidates) * length
        if self._budget is not None:
            total = max(total, math.floor(self._budget * (len(self._by_revision) * len(self._questions.items))))
        items = self._questions.items[block.start : block.stop]
        ids = {item.id for item in items}
        spec = self._questions.spec
        for checkpoint, scorer in self._with_scorers([self._by_revision[name] for name in block.candidates], block):
            by_id: dict[str, Prediction] = {}
            for batch in answers(self._run, checkpoint, self._questions, scorer, block.stop):
                by_id |= {prediction.item_id: prediction for prediction in batch if prediction.item_id in ids}
                self._watcher.scoring(checkpoint.name, self.answered + len(by_id), total)
            self.answered += length
            table = score_predictions(list(by_id.values()), items, spec.fallback, spec.estimator)
            self.race.record(checkpoint.id, table.abs_error.tolist())

    def _with_scorers(
        self, candidates: Sequence[Checkpoint], block: Block
    ) -> Iterator[tuple[Checkpoint, Callable[[], Scorer]]]:
        """Each candidate, and what makes the scorer answer with it; adapters are fetched once, the next one ahead."""
        wanted = [c for c in candidates if c.id not in self._adapters and self._is_wanted(c, block)]
        adapters = fetched_ahead(self._run.store.fetch, wanted)
        for checkpoint in candidates:
            if checkpoint in wanted:
                self._adapters[checkpoint.id] = next(adapters)
            yield checkpoint, partial(self._scorer, checkpoint.id)

    def _is_wanted(self, checkpoint: Checkpoint, block: Block) -> bool:
        # As in a full evaluation: in a folder all are verified, from the Hub only what is needed is fetched.
        if not self._run.store.is_remote:
            return True
        saved = {p.item_id for batch in saved_answers(self._run, checkpoint, self._questions) for p in batch}
        return not saved.issuperset(item.id for item in self._questions.items[: block.stop])

    def _scorer(self, revision: str) -> Scorer:
        scorer = self._load()
        scorer.use(self._adapters[revision])
        return scorer


class _Later:
    """A watcher for what is scored after `answered` answers: counts them along, so that the time left stays right."""

    def __init__(self, watcher: Watcher, answered: int) -> None:
        self._watcher = watcher
        self._answered = answered

    def note(self, text: str) -> None:
        self._watcher.note(text)

    def scoring(self, name: str, done: int, total: int) -> None:
        self._watcher.scoring(name, self._answered + done, self._answered + total)

    def scored(self, evaluation: Evaluation) -> None:
        self._watcher.scored(evaluation)
