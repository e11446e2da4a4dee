"""The repository of a run: made for a new run, refused to another one, and leased while the run is trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pricer.errors import HubError, LeaseLost
from pricer.redaction import hub_address
from pricer.stores.hub import Hub
from pricer.stores.hub_accounts import is_private, may_write, read_account
from pricer.stores.hub_client import is_offline
from pricer.stores.hub_lease import HubLease, Owner, holds_another_run, identify_folder
from pricer.stores.published import published_files
from pricer.stores.runs import Run

# Fewer attempts than usual: if the Hub is down, the training can start without it.
_ATTEMPTS = 3


def name_repo(repo: str, project: str, run: str) -> str:
    """The name of a run's repository. `auto` is resolved, which takes a request."""
    return f"{read_account().name}/{project}-{run}" if repo == "auto" else repo


def claim(repo: str, run_id: str | None, note: Callable[[str], None], *, private: bool) -> None:
    """Create the repository of a run, unless it is there. A HubError if the token may not write to it, or if it has
    checkpoints of a run with another id, because a repository is for one run.
    """
    hub = Hub(repo, attempts=_ATTEMPTS)
    hub.create(private=private)
    refuse_read_only(repo)
    if private and is_private(repo) is False:
        note(f"{repo} is public, although hub.private is true: it was there before, and keeps its visibility")
    _refuse_other_run(hub, run_id)


def refuse_repo(repo: str) -> None:
    """Raise a HubError if a new run could not push to the repository, as far as that is known before it is created.
    Nothing is written.
    """
    refuse_read_only(repo)
    hub = Hub(repo)
    try:
        hub.refs()
    except HubError as error:
        if error.transient or is_offline():
            raise
        return  # it is not there yet
    _refuse_other_run(hub, None)


def _refuse_other_run(hub: Hub, run_id: str | None) -> None:
    refs = hub.refs()
    record = hub.read_record(refs.branches.get("main"), "run.json")
    is_own = run_id is not None and record.get("id") == run_id
    if not is_own and (record or refs.step_tags):
        raise holds_another_run(hub.repo, record)


def refuse_read_only(repo: str) -> None:
    """Raise a HubError if the token may not write to the repository."""
    # A Hub in trouble may refuse somebody by mistake, so it is asked again.
    if all(may_write(repo) is False for _ in range(_ATTEMPTS)):
        raise HubError(
            f"the token of this machine may not write to {repo}",
            f"make one that may: {hub_address('settings/tokens')}, then hf auth login",
        )


def open_lease(run: Run, repo: str, run_id: str | None, resume: str) -> HubLease:
    """The lease of a run's repository, which is not acquired yet."""
    hub = Hub(repo, attempts=_ATTEMPTS, before_commit=run.outbox.budget.take)
    owner = Owner(run_id, identify_folder(run.folder), resume, run.has_finished)
    return HubLease(hub, owner, lambda: published_files(run.folder))


def open_lease_of(run: Run) -> HubLease:
    """The lease of the repository of a run that is complete here."""
    facts = run.facts()
    return open_lease(run, facts["repo"], facts.get("id"), f"pricer train --resume --run {run.name}")


def claim_repo(run: Run, note: Callable[[str], None]) -> None:
    """Claim the repository of a run, unless that was done before."""
    facts = run.facts()
    if facts.get("claimed") is False:
        claim(facts["repo"], facts.get("id"), note, private=run.config().hub.private)
        run.record(claimed=True)


def acquire(run: Run, lease: HubLease, note: Callable[[str], None], *, take_over: bool = False) -> None:
    """Acquire the lease of a run's repository. A note says who had it, if that was another run folder."""
    claim_repo(run, note)
    lease.acquire(take_over=take_over)
    describe_previous(lease, note)


def acquire_if_reachable(run: Run, lease: HubLease, note: Callable[[str], None], *, take_over: bool = False) -> None:
    """Acquire the lease. If the Hub cannot be reached, a note says so, and the uploads acquire the lease later. A
    HubError if another process holds the lease, or if the Hub would refuse the checkpoints, too.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            acquire(run, lease, note, take_over=take_over)
            return
        except LeaseLost:
            raise
        except HubError as error:
            problem = error
            if is_offline() or error.transient:
                break
            if not error.refused:
                raise
            refuse_read_only(lease.repo)  # if that is the reason, it is the better message
            # A Hub in trouble may refuse somebody by mistake.
            if attempt < _ATTEMPTS:
                lease.wait_after(attempt, error)
    if not (is_offline() or problem.transient):
        raise problem
    if not is_offline():
        refuse_read_only(lease.repo)
    note(f"{problem.message}; training goes on, and its checkpoints wait in the outbox")


def describe_previous(lease: HubLease, note: Callable[[str], None]) -> None:
    """Note who held the lease before, if it was another run folder, which did not give it back."""
    if lease.previous and lease.had_other_holder and not lease.previous.released:
        note(f"{lease.repo} is taken over from {lease.previous.describe()}")


@contextmanager
def released_at_end(run: Run, lease: HubLease | None, note: Callable[[str], None]) -> Iterator[None]:
    """When the block ends in order and all checkpoints of the run are on the Hub, give the lease back."""
    try:
        yield
    except Exception:
        _release(run, lease, note)
        raise
    _release(run, lease, note)


def _release(run: Run, lease: HubLease | None, note: Callable[[str], None]) -> None:
    if lease is None or run.outbox.entries():
        return  # another machine that goes on now would lack what is in the outbox
    try:
        lease.release()
    except LeaseLost:
        return  # there is nothing to give back
    except HubError as error:
        note(f"the lease of {lease.repo} was not given back ({error.message}): another machine needs --take-over")
