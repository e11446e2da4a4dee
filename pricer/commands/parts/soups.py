"""`pricer pick --candidates soup`: averages of the best checkpoint and its neighbours, made and scored to compete."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from pricer.commands.evaluate import Watcher, load_scorer, refuse_foreign, score_checkpoints
from pricer.commands.parts.batch_size import settle_batch_tokens
from pricer.commands.parts.predictions import Questions, existing
from pricer.commands.parts.setup import Setup, prepare
from pricer.core.checkpoints import Checkpoint, Member, soup_name, windows_around
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.data.reading import require
from pricer.errors import CheckpointError, RunError
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, write_manifest
from pricer.stores.files import sha256_of
from pricer.stores.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from pricer.ml.predict import CheckpointPredictor


def score_soups(run: Run, best: Evaluation, watcher: Watcher) -> list[Evaluation]:
    """The Evaluations, under the spec of the `best` single checkpoint, of the averages of two and of three neighbours
    that it is one of. What is there already is neither made nor scored again.
    """
    assert best.candidate.id is not None  # a checkpoint's
    windows = windows_around(run.store.checkpoints(), best.candidate.id)
    if not windows:
        watcher.note("there is one checkpoint, and none to average it with")
        return []
    setup = _setup(run, best.spec)
    for checkpoint in {c.id: c for window in windows for c in window}.values():
        refuse_foreign(checkpoint, setup)
    items = require(setup.items, best.spec.split, setup.config.data)[: best.spec.limit]
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in items])
    with run.evaluations.lock():
        load = cache(partial(load_scorer, setup, run))
        soups = [_kept(run, window) for window in windows]
        missing = sum(soup is None or existing(run, soup.id, best.spec) is None for soup in soups)
        # Before any adapter is put on: a trial is of the base as it is.
        batch_tokens = settle_batch_tokens(run, setup, prompts, missing, load, watcher.note)
        made = [soup or _make(run, window, load) for soup, window in zip(soups, windows, strict=True)]
        questions = Questions(best.spec, items, prompts, batch_tokens)
        return list(score_checkpoints(run, made, questions, load, watcher))


def _setup(run: Run, spec: EvalSpec) -> Setup:
    """The run's Setup; a RunError if what it asks today is not what its checkpoints were scored on."""
    setup = prepare(run.config())
    if setup.spec(spec.split, spec.limit) != spec:
        raise RunError(
            f"the checkpoints of {run.name} were scored under another spec than it has today, on other data, another "
            "base, another precision or by another estimator",
            "pricer eval --all-checkpoints",
        )
    return setup


def _kept(run: Run, window: Sequence[Checkpoint]) -> Checkpoint | None:
    """The soup of these very checkpoints that is there, whole and unchanged; else None."""
    members = _members(window)
    try:
        soup = next((soup for soup in run.store.soups() if soup.members == members), None)
        if soup:
            run.store.fetch(soup)
    except CheckpointError:
        return None
    return soup


def _make(run: Run, window: Sequence[Checkpoint], load: "Callable[[], CheckpointPredictor]") -> Checkpoint:
    folders = [run.store.fetch(checkpoint) for checkpoint in window]
    with run.store.new_soup([checkpoint.step for checkpoint in window]) as folder:
        try:
            load().average(folders, folder)
        except CheckpointError as error:
            name = soup_name([checkpoint.step for checkpoint in window])
            raise CheckpointError(f"{name} cannot be made: {error.message}", error.hint) from None
        soup = replace(
            window[-1],
            adapter_sha256=sha256_of(folder / ADAPTER),
            adapter_config_sha256=sha256_of(folder / ADAPTER_CONFIG),
            members=_members(window),
            commit=None,
            folder="",
        )
        write_manifest(folder, soup)
    return soup


def _members(window: Sequence[Checkpoint]) -> tuple[Member, ...]:
    return tuple(Member(checkpoint.step, checkpoint.id) for checkpoint in window)
