"""Put the pick of a run where people find it: the tag `best`, the adapter on `main`, the model card and the results."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from pricer.commands.parts.verdicts import find_dropped
from pricer.core.checkpoints import BEST, Checkpoint
from pricer.core.selection import PickRecord, Selection
from pricer.errors import HubError, RunError
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Published:
    """What a repository got of a pick besides its tag. `is_on_main`: its adapter is on `main`; `has_card`: beside a
    card of pricer. `left` says which page was not changed, and why; empty if all were.
    """

    repo: str
    is_on_main: bool = True
    has_card: bool = True
    left: str = ""


def publish(run: Run, selection: Selection) -> Published | None:
    """Tag the pick `best`, here and on the Hub, and commit it to `main` with its card. Publishing it again changes
    nothing. None if the run has no repository. A HubError if the Hub cannot be reached or refuses.
    """
    pick = find_picked(run, selection)
    run.store.tag(pick, BEST)
    pages = _Pages(run, pick, selection)
    try:
        repo = run.store.publish_pick(pick, pages.render)
    except HubError as refused:
        if refused.transient or not pages.has_results:
            raise
        # A Hub may take results of benchmarks alone. That must not cost the card.
        pages = _Pages(run, pick, selection, without_results=refused.message)
        try:
            repo = run.store.publish_pick(pick, pages.render)
        except HubError:
            raise refused from None
    return None if run.repo is None else Published(run.repo, repo is not None, pages.has_card, pages.left)


def publish_recorded(run: Run) -> Published | None:
    """Publish the last pick of `pricer pick`, for example because the Hub could not be reached then. None if nothing
    was picked, or if the run has no repository. A RunError if its evaluations are gone.
    """
    record = run.selection()
    return None if record is None or run.repo is None else publish(run, _read_selection(run, record))


def find_picked(run: Run, selection: Selection) -> Checkpoint:
    """The chosen checkpoint, as the run's store knows it."""
    return next(checkpoint for checkpoint in run.store.checkpoints() if checkpoint.id == selection.candidate.id)


def dropped_in_race(run: Run, selection: Selection) -> Set[str]:
    """The ids of the checkpoints that a race left out of the ranking."""
    return find_dropped(run, selection.chosen, [e.candidate for e in selection.ranking])


def _read_selection(run: Run, record: PickRecord) -> Selection:
    evaluations = {e.candidate.id: e for e in run.evaluations.all() if e.spec.fingerprint == record.spec_fingerprint}
    ids = [ranked.candidate.id for ranked in record.ranking]
    if missing := [ranked.candidate.name for ranked in record.ranking if ranked.candidate.id not in evaluations]:
        raise RunError(
            f"the evaluation of {missing[0]}, which the pick compared, is gone", f"pricer pick --run {run.name}"
        )
    return Selection(record.metric, tuple(evaluations[one] for one in ids), record.comparison)


class _Pages:
    """Renders the pages of one pick, and remembers which of them was left out, and why."""

    def __init__(self, run: Run, pick: Checkpoint, selection: Selection, *, without_results: str = "") -> None:
        self._run, self._pick, self._selection = run, pick, selection
        self._refusal = without_results
        self.has_card = self.has_results = False
        self.left = ""

    def render(self, repo: str, readme: bytes | None) -> Mapping[str, bytes] | None:
        """The pages for a repository with this README.md; None to leave it as it is."""
        from pricer.commands.parts.model_card import README, RESULTS, card_pages
        from pricer.views.model_card import SIGNATURE

        is_ours = readme is None or SIGNATURE.encode() in readme
        if not is_ours and self._pick.prompt_fingerprint is None:
            at = self._pick.loader_arguments
            self.left = f"main of {repo} is left as it is, because its README.md is not by pricer; the pick has {at}"
            return None
        pages = card_pages(
            self._run, repo, self._pick, self._selection, len(dropped_in_race(self._run, self._selection))
        )
        if not is_ours:
            del pages[README]
            self.left = f"the README.md of {repo} is left as it is, because it is not by pricer"
        if self._refusal and RESULTS in pages:
            del pages[RESULTS]
            self.left = f"{repo} did not take {RESULTS}: {self._refusal}"
        self.has_card, self.has_results = README in pages, RESULTS in pages
        return pages
