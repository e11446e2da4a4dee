"""The tables behind one evaluation: its error by price and category, its intervals, its worst items."""

from collections.abc import Sequence

from pricer.core.breakdowns import Breakdown, Group
from pricer.core.intervals import CoverageReport
from pricer.views import terminal


def show(name: str, breakdown: Breakdown) -> None:
    """The tables of the evaluation of that name, on stdout."""
    _groups(f"{name}: error by price", "price", [(_range(g), g) for g in breakdown.price_bands])
    if breakdown.categories:
        by_category = [(g.name or "(none)", g) for g in breakdown.categories]
        _groups(f"{name}: error by category", "category", by_category)
    overall, tail = breakdown.overall, breakdown.tail
    share = "" if tail.share_of_error is None else f"; the worst {tail.n:,} items carry {tail.share_of_error:.0%} of it"
    signed = f"bias {_dollars(overall.bias)}{_half(overall.bias_interval)} (estimate − price)"
    terminal.line(f"{signed}, mean absolute error ${overall.mae:,.2f}{share}")
    if breakdown.coverage:
        _coverage(name, breakdown)
    rows = [
        [
            _dollars(miss.error),
            f"${miss.price:,.2f}",
            "–" if miss.estimate is None else f"${miss.estimate:,.2f}",
            terminal.shortened(miss.text),
        ]
        for miss in breakdown.worst
    ]
    terminal.table(f"{name}: worst items", ["error", "price", "estimate", "item"], rows, text_last=True)


def _groups(title: str, first: str, groups: Sequence[tuple[str, Group]]) -> None:
    rows = [
        [
            terminal.shortened(name),
            f"{group.n:,}",
            f"${group.mae:,.2f}{_half(group.mae_interval)}",
            f"{group.mae / group.median:.1%}",
            f"{group.hit_rate:.1%}",
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
    errors = "  ".join(f"{point.share:.0%}: ${point.mae:,.2f}" for point in surest)
    terminal.line(f"MAE of the surest items: {errors}")


def _coverage_row(report: CoverageReport) -> list[str]:
    corrected = report.conformal
    return [
        f"{report.level:.0%}",
        "–" if corrected is None else _share(corrected.share, corrected.interval),
        "–" if corrected is None else _width(corrected.mean_width),
        _share(report.raw.share, report.raw.interval),
        _width(report.raw.mean_width),
    ]


def _share(share: float, interval: tuple[float, float]) -> str:
    return f"{share:.1%} ({interval[0]:.1%} – {interval[1]:.1%})"


def _width(width: float | None) -> str:
    return "–" if width is None else f"${width:,.2f}"


def _range(group: Group) -> str:
    return f"${group.lowest:,.0f} – {group.highest:,.0f}"


def _half(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:,.2f}"


def _dollars(amount: float) -> str:
    return f"{'−' if amount < 0 else '+'}${abs(amount):,.2f}"
