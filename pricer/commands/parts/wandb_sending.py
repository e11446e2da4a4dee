"""Sends what a run reports to its W&B run. It is there to be looked at, and stops nothing else."""

from collections.abc import Callable

from pricer.config import RunConfig
from pricer.errors import PricerError
from pricer.stores.runs import Run
from pricer.stores.wandb import Report, Tracker, TrackingLog


def tracker_of(run: Run, config: RunConfig, note: Callable[[str], None], goes_on: str) -> Tracker:
    """The run's tracker: the same W&B run as before, here or on another machine, or a new one that is recorded.
    `goes_on` says what goes on where tracking stops.
    """
    tracker = Tracker(
        config.tracking,
        settings=config.model_dump(),
        folder=run.folder,
        run_id=run.facts().get("tracking_id"),
        note=note,
        consequence=goes_on,
    )
    if tracker.run_id:
        run.record(tracking_id=tracker.run_id)
    return tracker


def send(run: Run, report: Report | None, note: Callable[[str], None], goes_on: str) -> None:
    """Add a report to the W&B run of a run whose config asks for it; W&B is not even started where nothing is new.

    It takes as long as W&B does, up to the tracker's patience, and raises nothing: `note` is told what went wrong.
    """
    try:
        config = run.config()
        if config.tracking.mode == "off" or report is None:
            return
        if (run_id := run.facts().get("tracking_id")) is not None:
            log = TrackingLog(run.folder / "tracking.jsonl", run_id)
            if refused := log.refused(report):
                note(
                    f"not on W&B: {', '.join(sorted(refused))} began there under another spec, which is not comparable"
                )
            report = log.unsent(report)
        if report.is_empty:
            return
        if run.is_locked:
            # Two processes cannot write one W&B run: the rows of one would be dropped.
            note(f"not on W&B yet, where {run.name} is being trained: do this again when training is over")
            return
        tracker = tracker_of(run, config, note, goes_on)
    except (PricerError, OSError, ValueError, KeyError, TypeError) as error:
        note(f"tracking stopped, {goes_on}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        return
    tracker.send(report)
    tracker.finish()
