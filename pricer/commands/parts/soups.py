"""`pricer pick --candidates soup`: make and score averages of the best checkpoint and its neighbours."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from pricer.commands.evaluate import score_checkpoints
from pricer.commands.parts.checkpoints import refuse_foreign
from pricer.commands.parts.session import EvaluationSession, open_session
from pricer.commands.parts.setup import Setup, prepare
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
    and Evaluations that exist are used again. Checkpoints that cannot be scored are left out, and the checkpoints
    before and after them count as consecutive.
    """
    assert best.candidate.id is not None  # it is a checkpoint
    failed = {failure.id for failure in run.evaluations.failures()} - {best.candidate.id}
    checkpoints = [checkpoint for checkpoint in run.store.checkpoints() if checkpoint.id not in failed]
    windows = windows_around(checkpoints, best.candidate.id)
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
    items = require(setup.items, Split.VAL, setup.config.data)
    with open_session(run, setup, best.spec, items, len(windows), watcher) as session:
        made, errors = [], []
        for window in windows:
            try:
                made.append(_soup_of(session, window, setup))
            except CheckpointError as error:
                errors.append(error)
                watcher.note(error.message)
        if not made:
            raise errors[0]
        return score_checkpoints(session, made)


def _soup_of(session: EvaluationSession, window: Sequence[Checkpoint], setup: Setup) -> Checkpoint:
    """The soup of exactly these checkpoints. It is made if it is missing or damaged. A CheckpointError if they have no
    average, or if one of them cannot be used.
    """
    store, members = session.run.store, tuple(Member(checkpoint.step, checkpoint.id) for checkpoint in window)
    with suppress(CheckpointError):
        for soup in store.soups():
            if soup.members == members:
                store.fetch(soup)
                return soup
    steps = [checkpoint.step for checkpoint in window]
    with store.new_soup(steps) as folder:
        try:
            for checkpoint in window:
                refuse_foreign(checkpoint, setup)
            session.load().average([session.fetch(checkpoint) for checkpoint in window], folder)
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
