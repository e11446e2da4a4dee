"""`pricer pick --candidates soup`: averages of the best checkpoint and its neighbours, made and scored to compete."""

from collections.abc import Sequence
from dataclasses import replace

from pricer.commands.parts.checkpoints import refuse_foreign
from pricer.commands.parts.session import EvaluationSession, open_session, score_checkpoints
from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.watcher import Watcher
from pricer.core.checkpoints import Checkpoint, Member, soup_name, windows_around
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.errors import CheckpointError, RunError
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, write_manifest
from pricer.stores.files import sha256_of
from pricer.stores.runs import Run


def score_soups(run: Run, best: Evaluation, watcher: Watcher) -> list[Evaluation]:
    """The Evaluations of the averages of two and of three neighbouring checkpoints that include the `best` one, under
    its spec. A soup that exists is neither made nor scored again.
    """
    assert best.candidate.id is not None  # a checkpoint's
    windows = windows_around(run.store.checkpoints(), best.candidate.id)
    if not windows:
        watcher.note("there is one checkpoint, and none to average it with")
        return []
    setup = _setup_like(run, best.spec)
    for checkpoint in {c.id: c for window in windows for c in window}.values():
        refuse_foreign(checkpoint, setup)
    with open_session(run, setup, best.spec.split, best.spec.limit, len(windows), watcher) as session:
        soups = [_find_soup(run, window) or _make_soup(session, window) for window in windows]
        return score_checkpoints(session, soups, watcher)


def _setup_like(run: Run, spec: EvalSpec) -> Setup:
    """The run's Setup; a RunError if it would score under another spec than this one."""
    setup = prepare(run.config())
    if setup.spec(spec.split, spec.limit) != spec:
        raise RunError(
            f"the checkpoints of {run.name} were scored under another spec than it has today, on other data, another "
            "base, another precision or by another estimator",
            "pricer eval --all-checkpoints",
        )
    return setup


def _find_soup(run: Run, window: Sequence[Checkpoint]) -> Checkpoint | None:
    """The soup of exactly these checkpoints; None if there is none, or if it is damaged."""
    members = _members(window)
    try:
        soup = next((soup for soup in run.store.soups() if soup.members == members), None)
        if soup:
            run.store.fetch(soup)
    except CheckpointError:
        return None
    return soup


def _make_soup(session: EvaluationSession, window: Sequence[Checkpoint]) -> Checkpoint:
    adapters = [session.fetch(checkpoint) for checkpoint in window]
    steps = [checkpoint.step for checkpoint in window]
    with session.run.store.new_soup(steps) as folder:
        try:
            session.load().average(adapters, folder)
        except CheckpointError as error:
            raise CheckpointError(f"{soup_name(steps)} cannot be made: {error.message}", error.hint) from None
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
