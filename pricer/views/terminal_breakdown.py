"""The tables behind one evaluation: its error by price and category, its intervals, its worst items."""

from collections.abc import Sequence

from pricer.core.breakdowns import Breakdown, Group
from pricer.core.intervals import CoverageReport
from pricer.views import terminal
from pricer.views.formatting import dollars, half_width, price_range, share, share_with_interval
from pricer.views.terminal_tables import excerpt


def show(name: str, breakdown: Breakdown) -> None:
    """The tables of the evaluation of that name, on stdout."""
    _groups(f"{name}: error by price", "price", [(price_range(g.lowest, g.highest), g) for g in breakdown.price_bands])
    if breakdown.categories:
        by_category = [(g.name or "(none)", g) for g in breakdown.categories]
        _groups(f"{name}: error by category", "category", by_category)
    overall, tail = breakdown.overall, breakdown.tail
    carried = (
        "" if tail.share_of_error is None else f"; the worst {tail.n:,} items carry {tail.share_of_error:.0%} of it"
    )
    signed = f"bias {dollars(overall.bias, signed=True)}{half_width(overall.bias_interval)} (estimate − price)"
    terminal.line(f"{signed}, mean absolute error {dollars(overall.mae)}{carried}")
    if breakdown.coverage:
        _coverage(name, breakdown)
    rows = [
        [
            dollars(miss.error, signed=True),
            dollars(miss.price),
            dollars(miss.estimate),
            excerpt(miss.text),
        ]
        for miss in breakdown.worst
    ]
    terminal.table(f"{name}: worst items", ["error", "price", "estimate", "item"], rows, text_last=True)


def _groups(title: str, first: str, groups: Sequence[tuple[str, Group]]) -> None:
    rows = [
        [
            excerpt(name),
            f"{group.n:,}",
            f"{dollars(group.mae)}{half_width(group.mae_interval)}",
            share(group.mae / group.median),
            share(group.hit_rate),
            f"{group.no_price:,}",
        ]
        for name, group in groups
    ]
    terminal.table(title, [first, "n", "MAE", "of the median price", "hits", "no price"], rows)


def _coverage(name: str, breakdown: Breakdown) -> None:
    corrected_on = breakdown.calibrated_on
    how = f"corrected on {corrected_on:,} validation items" if corrected_on else "raw, as the model gives them"
    rows = [_coverage_row(report) for report in breakdown.coverage]
    columns = ["interval", "covered", "mean width", "raw covered", "raw mean width"]
    terminal.table(f"{name}: intervals, {how}", columns, rows)
    surest = [point for point in breakdown.abstention if point.share in (0.1, 0.2, 0.5, 1.0)]
    errors = "  ".join(f"{point.share:.0%}: {dollars(point.mae)}" for point in surest)
    terminal.line(f"MAE of the surest items: {errors}")


def _coverage_row(report: CoverageReport) -> list[str]:
    corrected = report.conformal
    return [
        f"{report.level:.0%}",
        "–" if corrected is None else share_with_interval(corrected.share, corrected.interval),
        "–" if corrected is None else dollars(corrected.mean_width),
        share_with_interval(report.raw.share, report.raw.interval),
        dollars(report.raw.mean_width),
    ]
