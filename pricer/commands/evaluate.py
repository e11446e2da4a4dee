"""`pricer eval`: score checkpoints and baselines on held-out items, each once, going on wherever it was stopped."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pricer.commands.parts.baselines import evaluate_baselines
from pricer.commands.parts.batch_size import settle_batch_tokens
from pricer.commands.parts.breakdown import saved_breakdown
from pricer.commands.parts.predictions import Questions, Scorer, answers, existing
from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.wandb_report import evaluation_report
from pricer.core.breakdowns import Breakdown
from pricer.core.candidates import Candidate
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.core.race_record import RaceRecord
from pricer.data.reading import require
from pricer.errors import CheckpointError
from pricer.stores.bases import names_a_folder
from pricer.stores.runs import Run, find_run
from pricer.stores.wandb import Report

if TYPE_CHECKING:
    from pricer.ml.predict import CheckpointPredictor


class Watcher(Protocol):
    """Whoever wants to know how scoring goes."""

    def note(self, text: str) -> None:
        """Something the user should know once."""

    def scoring(self, name: str, done: int, total: int) -> None:
        """`name` is being scored; `done` of `total` answers are there, over all checkpoints that need any."""

    def scored(self, evaluation: Evaluation) -> None:
        """An evaluation is there, made now or before."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What `pricer eval` returns: baselines first, then the checkpoints by step. Of a single checkpoint there is a
    breakdown; `race` is how all of them raced, if they did. `report` is what a run that is tracked shows of it on W&B.
    """

    run: Run
    spec: EvalSpec
    n: int
    evaluations: tuple[Evaluation, ...]
    breakdown: Breakdown | None = None
    race: RaceRecord | None = None
    report: Report | None = None


Scoring = Callable[
    [Run, Sequence[Checkpoint], Questions, Callable[[], Scorer], Watcher],
    Iterable[Evaluation],
]
"""How a run's checkpoints come to their Evaluations."""


def run_eval(name: str | None, which: str, split: Split, limit: int | None, watcher: Watcher) -> Evaluated:
    """Evaluate the checkpoints of the run of that name (None: the newest)."""
    return score_run(find_run(name, note=watcher.note), which, split, limit, watcher)


def score_run(
    run: Run, which: str, split: Split, limit: int | None, watcher: Watcher, score: Scoring | None = None
) -> Evaluated:
    """Evaluate a run's checkpoints: `which` is all, last, best, a step or the start of a revision or commit. `score`
    says how; None: each on all items.
    """
    if waiting := [entry.name for entry in run.outbox.entries() if entry.kind == "checkpoint"]:
        watcher.note(f"not on the Hub yet, so not scored: {', '.join(waiting)} (pricer push --run {run.name})")
    checkpoints = choose(run, which)
    setup = prepare(run.config())
    for checkpoint in checkpoints:
        refuse_foreign(checkpoint, setup)
    run.pin_config(setup.config)
    for note in setup.notes:
        watcher.note(note)
    items = require(setup.items, split, setup.config.data)[:limit]
    spec = setup.spec(split, limit)
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in items])
    if cut := sum(prompt.cut for prompt in prompts):
        watcher.note(f"{cut:,} of {len(items):,} descriptions were cut to {setup.template.max_length} tokens")
    with run.evaluations.lock():
        load = cache(partial(load_scorer, setup, run))
        # Before any adapter is put on: the base is tried out, and asked, as it is.
        missing = sum(existing(run, checkpoint.id, spec) is None for checkpoint in checkpoints)
        questions = Questions(
            spec, items, prompts, settle_batch_tokens(run, setup, prompts, missing, load, watcher.note)
        )
        known = []
        for evaluation in evaluate_baselines(run, setup, spec, items, prompts, load):
            watcher.scored(evaluation)
            known.append(evaluation)
        how = score or score_checkpoints
        evaluations = list(how(run, checkpoints, questions, load, watcher))
        if load.cache_info().currsize:
            from pricer.ml.devices import peak_memory

            run.record(peak_memory_eval=peak_memory(setup.precision.device))
    tracked = setup.config.tracking.mode != "off"
    report = evaluation_report(spec, items, [*known, *evaluations], run.evaluations.predictions) if tracked else None
    found = Evaluated(run, spec, len(items), (*known, *evaluations), report=report)
    if which == "all":
        return found
    (checkpoint,) = checkpoints
    table = run.evaluations.scores(checkpoint.id, spec)
    assert table is not None  # kept with the evaluation
    return replace(found, breakdown=saved_breakdown(run, checkpoint.id, spec, table, items, setup.items.val))


def choose(run: Run, which: str) -> list[Checkpoint]:
    """The checkpoints that `which` names; a CheckpointError if it names none."""
    checkpoints = run.store.checkpoints()
    if not checkpoints:
        raise CheckpointError(f"the run {run.name} has no checkpoint yet", f"pricer train --resume --run {run.name}")
    if which == "all":
        return checkpoints
    if which == "last":
        return checkpoints[-1:]
    if which == "best":
        best = run.store.tagged("best")
        if best is None:
            raise CheckpointError(f"no best checkpoint of {run.name} has been picked yet", "pricer pick")
        return [best]
    known = [*checkpoints, *run.store.soups()]
    found = [c for c in known if which == c.name or (which == str(c.step) and not c.members)]
    found = found or [c for c in known if len(which) >= 4 and is_named(c, which)]
    if len(found) != 1:
        steps = ", ".join(str(c.step) for c in checkpoints)
        what = "several checkpoints" if found else "no checkpoint"
        raise CheckpointError(f"{which} names {what} of {run.name}", f"a step ({steps}), a revision, best or last")
    return found


def is_named(checkpoint: Checkpoint, prefix: str) -> bool:
    """Whether its revision, or the commit that holds it, starts like that."""
    return any(name.startswith(prefix) for name in (checkpoint.id, checkpoint.commit) if name)


def refuse_foreign(checkpoint: Checkpoint, setup: Setup, checked: Collection[str] = ("prompt", "data", "base")) -> None:
    """Raise a CheckpointError unless the checkpoint was trained with this prompt, data and base, as far as it says and
    as `checked` wants it.
    """
    stated = {
        "prompt": (checkpoint.prompt_fingerprint, setup.template.fingerprint),
        "data": (checkpoint.data_fingerprint, setup.items.fingerprint),
        "base": (_base(checkpoint), f"{setup.base.name}@{setup.base.revision}"),
    }
    for what, (trained, present) in stated.items():
        if what in checked and trained is not None and trained != present:
            raise CheckpointError(
                f"checkpoint step {checkpoint.step} ({checkpoint.id[:7]}) was trained with {what} {trained}, "
                f"this run has {what} {present}",
                "scores would not be comparable: put the run's config and data back as they were in training",
            )
    if checkpoint.base_revision is None and checkpoint.base != setup.base.name and not is_elsewhere(checkpoint.base):
        raise CheckpointError(
            f"checkpoint step {checkpoint.step} is an adapter of {checkpoint.base}, this config has {setup.base.name}",
            f"--set model.base={checkpoint.base}",
        )


def _base(checkpoint: Checkpoint) -> str | None:
    return None if checkpoint.base_revision is None else f"{checkpoint.base}@{checkpoint.base_revision}"


def is_elsewhere(base: str) -> bool:
    """Whether the name of a base is that of a folder, which on another machine means nothing or something else."""
    return not base.startswith("builtin:") and names_a_folder(base)


def score_checkpoints(
    run: Run, checkpoints: Sequence[Checkpoint], questions: Questions, load: Callable[[], Scorer], watcher: Watcher
) -> Iterator[Evaluation]:
    """Each checkpoint's Evaluation: read if it exists, else made. `load` is called once, and only for answers that are
    not saved yet.
    """
    loaded: list[Scorer] = []

    def scorer(adapter: Path) -> Scorer:
        if not loaded:
            loaded.append(load())
        loaded[0].use(adapter)
        return loaded[0]

    known = {c.id: existing(run, c.id, questions.spec) for c in checkpoints}
    missing = [revision for revision, evaluation in known.items() if evaluation is None]
    # In a folder all are verified, even those that were scored before; from the Hub only what is needed is fetched.
    wanted = checkpoints if not run.store.is_remote else [c for c in checkpoints if known[c.id] is None]
    adapters = fetched_ahead(run.store.fetch, wanted)
    for checkpoint in checkpoints:
        adapter = next(adapters) if checkpoint in wanted else None
        evaluation = known[checkpoint.id]
        if evaluation is None:
            assert adapter is not None  # wanted
            n = len(questions.items)
            before, total = missing.index(checkpoint.id) * n, len(missing) * n
            predictions: list[Prediction] = []
            for batch in answers(run, checkpoint, questions, partial(scorer, adapter)):
                predictions += batch
                watcher.scoring(checkpoint.name, before + len(predictions), total)
            candidate = Candidate.of(checkpoint)
            evaluation, table = evaluate(candidate, questions.spec, predictions, questions.items)
            run.evaluations.add(checkpoint.id, evaluation, table)
        watcher.scored(evaluation)
        yield evaluation


def fetched_ahead(fetch: Callable[[Checkpoint], Path], checkpoints: Sequence[Checkpoint]) -> Iterator[Path]:
    """The folder of each checkpoint; the next one is fetched while the caller is at work with the present one."""
    fetches = [_Fetch(fetch, checkpoint) for checkpoint in checkpoints]
    for index, current in enumerate(fetches):
        if index == 0:
            current.start()
        folder = current.result()
        if index + 1 < len(fetches):
            fetches[index + 1].start()
        yield folder


class _Fetch(threading.Thread):
    """One fetch in the background. A daemon: a download that hangs does not keep the process."""

    def __init__(self, fetch: Callable[[Checkpoint], Path], checkpoint: Checkpoint) -> None:
        super().__init__(daemon=True)
        self._fetch = fetch
        self._checkpoint = checkpoint
        self._outcome: Path | Exception | None = None

    def run(self) -> None:
        try:
            self._outcome = self._fetch(self._checkpoint)
        except Exception as error:  # raised where it is waited for
            self._outcome = error

    def result(self) -> Path:
        """Wait for the folder; raises what the fetch raised."""
        self.join()
        assert self._outcome is not None
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def load_scorer(setup: Setup, run: Run | None = None) -> "CheckpointPredictor":
    """The base in memory, as `run` had it before, ready for adapters."""
    from pricer.commands.parts.setup import load_base_of
    from pricer.ml.decode import TreeDecoder
    from pricer.ml.predict import CheckpointPredictor

    base = load_base_of(setup, run)
    decoder = TreeDecoder(
        base,
        setup.tokenizer,
        setup.template.price_format,
        setup.encoder.answer_length,
        setup.price_tokens,
        setup.config.eval.residual_mass,
        setup.price_suffix,
    )
    return CheckpointPredictor(base, decoder)
