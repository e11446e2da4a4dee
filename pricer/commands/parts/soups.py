"""`pricer pick --candidates soup`: make and score averages of the best checkpoint and its neighbours."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from pricer.commands.evaluate import score_checkpoints
from pricer.commands.parts.checkpoints import refuse_foreign
from pricer.commands.parts.session import EvaluationSession, open_session
from pricer.commands.parts.setup import prepare
from pricer.commands.parts.watcher import Watcher
from pricer.core.checkpoints import Checkpoint, Member, soup_name, windows_around
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.data.preparation import require
from pricer.errors import CheckpointError, RunError
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, write_manifest
from pricer.stores.files import sha256_of
from pricer.stores.runs import Run


def score_soups(run: Run, best: Evaluation, watcher: Watcher) -> list[Evaluation]:
    """Evaluate every average of two or three consecutive checkpoints that include the `best` one, under its spec. Soups
    and Evaluations that exist are used again.
    """
    assert best.candidate.id is not None  # it is a checkpoint
    windows = windows_around(run.store.checkpoints(), best.candidate.id)
    if not windows:
        watcher.note("there is one checkpoint, and none to average it with")
        return []
    setup = prepare(run.config(), progress=watcher.preparing)
    # Only validation evaluations are ranked.
    if setup.spec(Split.VAL, best.spec.limit) != best.spec:
        raise RunError(
            f"the checkpoints of {run.name} were scored under another spec than it has today, on other data, another "
            "base, another precision or by another estimator",
            "pricer eval --all-checkpoints",
        )
    for checkpoint in {c.id: c for window in windows for c in window}.values():
        refuse_foreign(checkpoint, setup)
    items = require(setup.items, Split.VAL, setup.config.data)
    with open_session(run, setup, best.spec, items, len(windows), watcher) as session:
        return score_checkpoints(session, [_soup_of(session, window) for window in windows])


def _soup_of(session: EvaluationSession, window: Sequence[Checkpoint]) -> Checkpoint:
    """The soup of exactly these checkpoints. It is made if it is missing or damaged."""
    store, members = session.run.store, tuple(Member(checkpoint.step, checkpoint.id) for checkpoint in window)
    with suppress(CheckpointError):
        for soup in store.soups():
            if soup.members == members:
                store.fetch(soup)
                return soup
    adapters = [session.fetch(checkpoint) for checkpoint in window]
    steps = [checkpoint.step for checkpoint in window]
    with store.new_soup(steps) as folder:
        try:
            session.load().average(adapters, folder)
        except CheckpointError as error:
            raise CheckpointError(f"{soup_name(steps)} cannot be made: {error.message}", error.hint) from None
        soup = replace(
            window[-1],
            adapter_sha256=sha256_of(folder / ADAPTER),
            adapter_config_sha256=sha256_of(folder / ADAPTER_CONFIG),
            members=members,
            commit=None,
            folder="",
        )
        write_manifest(folder, soup)
    return soup
