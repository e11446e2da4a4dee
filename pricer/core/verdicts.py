"""Verdicts: what the measurements of a run mean for somebody who wants to use the model. Each verdict is about one
topic and holds its facts; views/verdicts.py makes a sentence of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from pricer.core.comparison import Comparison, Difference, Lead
from pricer.core.evaluation import Evaluation, Scored
from pricer.core.intervals import CoverageReport
from pricer.core.metrics import Z95

Interval = tuple[float, float]

# A smaller share of rows that were left out is not worth a sentence.
_NOTABLE_LEFT_OUT = 0.05
# With this many items, the share in the 80 % intervals is known to ± 8 points. With much fewer, none would ever fail.
_ENOUGH = 100


@dataclass(frozen=True, slots=True)
class BaselineVerdict:
    """Whether the checkpoint at `step` is better than the best of `baselines` baselines, and how wrong it is.

    `error` is the mean absolute error of the checkpoint on the `n` items of `split`, and `lower_by` is how much lower
    it is than the error of `baseline` (negative: it is higher). Both have 95 % intervals, None for a single item. The
    outcome `alike` means that the interval of `lower_by` contains 0. `median_price` is the median of the true prices.
    Without baselines, the outcome is `unknown`, and `baseline`, `lower_by` and its interval are None.

    `choice` says what the choice of the checkpoint did to these numbers. `none`: the items took no part in a choice.
    `corrected`: they chose the checkpoint, and both numbers are corrected for that. `uncorrected`: they chose it, and
    the error is too low by an unknown amount. If the items are not known to be held out (`is_held_out` is false), the
    model may have been trained on them, and the outcome is `unknown`.
    """

    outcome: Literal["better", "alike", "worse", "unknown"]
    step: int
    split: Scored
    n: int
    error: float
    error_interval: Interval | None
    median_price: float
    baselines: int
    baseline: str | None
    lower_by: float | None
    interval: Interval | None
    choice: Literal["none", "corrected", "uncorrected"]
    is_held_out: bool


@dataclass(frozen=True, slots=True)
class CurveVerdict:
    """How the metric changed with the length of the training.

    `improving`: the best checkpoint is the last one, and the one before it is clearly worse: the interval of the
    difference is above 0. `unclear`: the best is the last, and the one before it is not clearly worse. `over-trained`:
    the last checkpoint is clearly worse than the best. `no clear change`: it is not. `unfinished`: the best is the last
    one that was scored, but `later` checkpoints after it were not scored. `raced`: `dropped` checkpoints dropped out of
    a race, so there is no curve. `single`: only one checkpoint was scored.

    `other_step` is the checkpoint that the best one is compared with: the last one, or the one before the last. It is
    worse by `worse_by`, in the unit of `metric`, with a 95 % interval. The three are None where nothing was compared.
    """

    outcome: Literal["improving", "unclear", "over-trained", "no clear change", "unfinished", "raced", "single"]
    metric: str
    scored: int
    best_step: int
    other_step: int | None = None
    worse_by: float | None = None
    interval: Interval | None = None
    later: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class CutVerdict:
    """How much of the data the model does not see. `train` and `scored` are the shares of training descriptions and of
    scored descriptions (those of `split`) that are cut at `max_length` tokens, None if unknown. `left_out` of the
    `rows` of the source were left out.
    """

    max_length: int | None
    split: Scored
    train: float | None
    scored: float | None
    left_out: int
    rows: int

    @property
    def is_cut(self) -> bool:
        """Whether any description is cut."""
        return bool(self.train or self.scored)

    @property
    def lacks_rows(self) -> bool:
        """Whether a notable share of the rows was left out."""
        return self.left_out > _NOTABLE_LEFT_OUT * self.rows


@dataclass(frozen=True, slots=True)
class CoveredLevel:
    """The `share` of items whose price lies in their interval of a `level`, with the 95 % interval of the share.
    `mean_width` is the mean width of these intervals in units, None if no item has one.
    """

    level: float
    share: float
    interval: Interval
    mean_width: float | None


@dataclass(frozen=True, slots=True)
class IntervalVerdict:
    """Whether the price intervals hold on `n` test items or items of other data. `too narrow`: at one level, the
    interval of the share lies below the level. `too wide`: at one level it lies above, and at none below. `unknown`:
    neither is so, but there are too few items to see it. `is_corrected`: the intervals were corrected on validation
    items.
    """

    outcome: Literal["hold", "too narrow", "too wide", "unknown"]
    split: Scored
    n: int
    levels: tuple[CoveredLevel, ...]
    is_corrected: bool


@dataclass(frozen=True, slots=True)
class LookVerdict:
    """Whether the test items were scored for this checkpoint, and how often they were looked at `before`: the number of
    other measurements of the run's checkpoints on them. `others` names these checkpoints.
    """

    outcome: Literal["not scored", "first look", "looked at before"]
    before: int
    others: tuple[str, ...]


Verdict = BaselineVerdict | CurveVerdict | CutVerdict | IntervalVerdict | LookVerdict


def judge_baselines(
    shown: Evaluation,
    median_price: float,
    leads: Sequence[Lead],
    *,
    comparison: Comparison | None = None,
    was_chosen: bool = False,
    is_held_out: bool = True,
) -> BaselineVerdict:
    """The verdict on the checkpoint that was evaluated as `shown`, with its leads over the baselines on the same items.

    `was_chosen`: it was chosen on these items. `comparison` is the comparison by mean absolute error that chose it;
    None if there is none, for example because another metric chose it.
    """
    mae, step = shown.metric("mae"), shown.candidate.step
    if mae.value is None or step is None:
        raise ValueError(f"{shown.name} is no checkpoint with a mean absolute error")
    error, error_interval, optimism = mae.value, mae.interval, 0.0
    if was_chosen and comparison:
        error, error_interval = comparison.corrected, comparison.corrected_interval
        optimism = error - mae.value
    smallest = min(leads, key=lambda lead: lead.lower_by, default=None)
    interval = bound_smallest_lead(leads, optimism)
    low, high = interval or (0.0, 0.0)
    outcome: Literal["better", "alike", "worse", "unknown"] = "better" if low > 0 else "worse" if high < 0 else "alike"
    return BaselineVerdict(
        outcome=outcome if smallest and is_held_out else "unknown",
        step=step,
        split=shown.spec.split,
        n=mae.n,
        error=error,
        error_interval=error_interval,
        median_price=median_price,
        baselines=len(leads),
        baseline=smallest.baseline if smallest else None,
        lower_by=smallest.lower_by - optimism if smallest else None,
        interval=interval,
        choice="none" if not was_chosen else "corrected" if comparison else "uncorrected",
        is_held_out=is_held_out,
    )


def bound_smallest_lead(leads: Sequence[Lead], optimism: float = 0.0) -> Interval | None:
    """The 95 % interval of the lead over the best baseline, which is the smallest of the true leads. The interval holds
    although the same items decide which baseline looks best. None without leads, and for a single item.

    - The lower end is the lowest of all lower ends. It is too high only if the lower end for the truly best baseline
      is, so it needs no correction (an intersection-union test, Berger 1982).
    - The upper end is the lowest of all upper ends. Any of them could be too low by chance, so each one is at
      1 − 0.025/k for k baselines (Bonferroni).

    `optimism` is how much too low the checkpoint's error is because the items chose it. It is an estimate, so its
    square is added to the squared standard error, as in the corrected metric.
    """
    if not leads or any(lead.interval is None for lead in leads):
        return None
    z_upper = NormalDist().inv_cdf(1 - 0.025 / len(leads))
    ends = []
    for lead in leads:
        assert lead.interval is not None
        error = math.hypot((lead.interval[1] - lead.interval[0]) / (2 * Z95), optimism)
        middle = lead.lower_by - optimism
        ends.append((middle - Z95 * error, middle + z_upper * error))
    return min(low for low, _ in ends), min(high for _, high in ends)


def judge_curve(
    chosen: Evaluation, metric: str, comparison: Comparison | None, *, scored: int, later: int = 0, dropped: int = 0
) -> CurveVerdict | None:
    """The verdict on the curve of `scored` checkpoints, of which `chosen` is the best. `later` checkpoints after the
    last scored one were not scored, and `dropped` ones dropped out of a race. None if several checkpoints were scored
    but not compared.
    """
    step = chosen.candidate.step or 0
    if dropped:
        return CurveVerdict("raced", metric, scored, step, dropped=dropped)
    if scored == 1:
        return CurveVerdict("single", metric, scored, step, later=later)
    if comparison is None:
        return None
    by_step = sorted(comparison.differences, key=lambda one: one.candidate.order)
    last = by_step[-1]
    if last.candidate.id != chosen.candidate.id:
        found: Literal["over-trained", "no clear change"] = "over-trained" if _is_worse(last) else "no clear change"
        return _curve(found, metric, scored, step, last, later)
    if later:
        return CurveVerdict("unfinished", metric, scored, step, later=later)
    before = by_step[-2]
    return _curve("improving" if _is_worse(before) else "unclear", metric, scored, step, before)


def _is_worse(one: Difference) -> bool:
    """Whether the interval that the sentence shows says so. A checkpoint can be ruled out as the best without that."""
    return one.interval[0] > 0


def _curve(
    outcome: Literal["improving", "unclear", "over-trained", "no clear change"],
    metric: str,
    scored: int,
    step: int,
    other: Difference,
    later: int = 0,
) -> CurveVerdict:
    return CurveVerdict(outcome, metric, scored, step, other.candidate.step, other.worse_by, other.interval, later)


def judge_intervals(split: Scored, coverage: Sequence[CoverageReport]) -> IntervalVerdict | None:
    """The verdict on the intervals of items that did not calibrate them; None without any."""
    if not coverage:
        return None
    found, n = [(report.level, report.conformal or report.raw) for report in coverage], coverage[0].n
    levels = tuple(CoveredLevel(level, held.share, held.interval, held.mean_width) for level, held in found)
    is_narrow = any(one.interval[1] < one.level for one in levels)
    is_wide = any(one.interval[0] > one.level for one in levels)
    return IntervalVerdict(
        outcome="too narrow" if is_narrow else "too wide" if is_wide else "hold" if n >= _ENOUGH else "unknown",
        split=split,
        n=n,
        levels=levels,
        is_corrected=all(report.conformal for report in coverage),
    )


def judge_looks(*, is_scored: bool, before: int, others: Sequence[str]) -> LookVerdict:
    """The verdict on the test items, from the number of other looks at them and the names of their checkpoints."""
    outcome: Literal["first look", "looked at before"] = "looked at before" if before else "first look"
    return LookVerdict(outcome if is_scored else "not scored", before, tuple(dict.fromkeys(others)))
