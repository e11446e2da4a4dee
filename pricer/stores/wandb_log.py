"""What of a run is on Weights & Biases already, so that nothing is sent twice and no curve goes back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricer.stores.files import append_lines, read_lines


@dataclass(frozen=True, slots=True)
class Table:
    """Rows to look at, of the checkpoint at a step, and a scatter plot of two of their columns: `down` over `across`.
    None in a cell: no value.
    """

    name: str
    step: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    across: str
    down: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation or a pick adds to a run. `points`: metrics by the step of the checkpoint, all measured under
    the spec of that fingerprint, as is what stands in the `table`; `summary` are single values.
    """

    spec: str
    points: Mapping[int, Mapping[str, float]]
    summary: Mapping[str, float | int]
    table: Table | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self.points or self.summary or self.table)


class TrackingLog:
    """The record in a run's folder of what was sent to one W&B run. `rows` is how many rows that were.

    Of the curves of training the newest step counts: after a kill, some steps are done again. The checkpoints are
    evaluated in any order, so of those curves each step does.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.rows = 0
        self._path = path
        self._run_id = run_id
        self._newest: dict[str, int] = {}
        self._points: dict[str, set[int]] = {}
        self._specs: dict[str, str] = {}
        self._summary: dict[str, Any] = {}
        for line in read_lines(path):
            if line["run"] == run_id:
                self._remember(line)

    @property
    def last_step(self) -> int:
        """The highest step of all that was sent; 0: nothing was."""
        return max(self._newest.values(), default=0)

    def add_summary(self, summary: Any) -> None:
        """Take over what W&B knows of the run, which another machine may have logged: the last value of each metric,
        without its step. With the last step of all, no curve goes back.
        """
        if (step := summary.get("step")) is not None:
            self._newest |= {name: max(int(step), self._newest.get(name, 0)) for name in summary.keys()}  # noqa: SIM118

    def is_new(self, name: str, step: int) -> bool:
        """Whether the metric has nothing yet at that step or after it."""
        return name != "step" and step > self._newest.get(name, -1)

    def add(self, names: Mapping[str, Any], step: int, spec: str | None = None) -> None:
        """Record that these metrics are logged, of training up to a step or, under a spec, at it; outlives a kill."""
        line = {"run": self._run_id, "step": step, "names": list(names)} | ({"spec": spec} if spec else {})
        append_lines(self._path, [line], durable=False)
        self._remember(line)

    def add_values(self, summary: Mapping[str, float | int]) -> None:
        """Record that these values stand in the summary."""
        line = {"run": self._run_id, "summary": dict(summary)}
        append_lines(self._path, [line], durable=False)
        self._remember(line)

    def unsent(self, report: Report) -> Report:
        """The part of a report that was not sent. Of a curve that began under another spec nothing is left: its points
        would not be comparable.
        """
        points: dict[int, Mapping[str, float]] = {}
        for step, metrics in report.points.items():
            if left := {name: value for name, value in metrics.items() if self._lacks(name, step, report.spec)}:
                points[step] = left
        summary = {name: value for name, value in report.summary.items() if self._summary.get(name) != value}
        table = (
            report.table if report.table and self._lacks(report.table.name, report.table.step, report.spec) else None
        )
        return Report(report.spec, points, summary, table)

    def refused(self, report: Report) -> set[str]:
        """The names of a report's curves that began under another spec."""
        names = {name for metrics in report.points.values() for name in metrics}
        return {name for name in names if self._specs.get(name, report.spec) != report.spec}

    def _lacks(self, name: str, step: int, spec: str) -> bool:
        if name in self._points:
            return self._specs[name] == spec and step not in self._points[name]
        return self.is_new(name, step)  # of another machine's no more is known than that

    def _remember(self, line: Mapping[str, Any]) -> None:
        if "summary" in line:
            self._summary |= line["summary"]
            return
        self.rows += 1
        names, step = line["names"], line["step"]
        self._newest |= {name: max(step, self._newest.get(name, step)) for name in names}
        if spec := line.get("spec"):
            for name in names:
                self._points.setdefault(name, set()).add(step)
                self._specs.setdefault(name, spec)
