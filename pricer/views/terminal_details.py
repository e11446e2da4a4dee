"""The tables behind one evaluation: its error by price and category, its intervals, its worst items."""

from collections.abc import Sequence

from pricer.commands.parts.breakdown import Details
from pricer.core.breakdowns import Group
from pricer.core.intervals import CoverageReport
from pricer.views import terminal


def show(details: Details) -> None:
    """The tables, on stdout."""
    breakdown = details.breakdown
    _groups(f"{details.name}: error by price", "price", [(_range(g), g) for g in breakdown.price_bands])
    if breakdown.categories:
        named = [(g.name or "(none)", g) for g in breakdown.categories]
        _groups(f"{details.name}: error by category", "category", named)
    bias, tail = breakdown.overall, breakdown.tail
    share = "" if tail.share_of_error is None else f"; the worst {tail.n:,} items carry {tail.share_of_error:.0%} of it"
    signed = f"bias {_dollars(bias.bias)}{_half(bias.bias_interval)} (estimate − price)"
    terminal.line(f"{signed}, mean absolute error ${bias.mae:,.2f}{share}")
    if details.coverage:
        _coverage(details)
    rows = [
        [
            _dollars(miss.error),
            f"${miss.price:,.2f}",
            "–" if miss.estimate is None else f"${miss.estimate:,.2f}",
            terminal.shortened(miss.text),
        ]
        for miss in breakdown.worst
    ]
    terminal.table(f"{details.name}: worst items", ["error", "price", "estimate", "item"], rows, text_last=True)


def _groups(title: str, first: str, groups: Sequence[tuple[str, Group]]) -> None:
    rows = [
        [
            terminal.shortened(name),
            f"{group.n:,}",
            f"${group.mae:,.2f}{_half(group.mae_interval)}",
            f"{group.mae / ((group.lowest + group.highest) / 2):.1%}",
            f"{group.hit_rate:.1%}",
            f"{group.silent:,}",
        ]
        for name, group in groups
    ]
    terminal.table(title, [first, "n", "MAE", "of the mid-price", "hits", "no price"], rows)


def _coverage(details: Details) -> None:
    how = (
        f"corrected on {details.calibrated_on:,} validation items"
        if details.calibrated_on
        else "raw, as the model has them"
    )
    rows = [_coverage_row(report) for report in details.coverage]
    columns = ["interval", "covered", "mean width", "raw covered", "raw mean width"]
    terminal.table(f"{details.name}: intervals, {how}", columns, rows)
    surest = [point for point in details.abstention if point.share in (0.1, 0.2, 0.5, 1.0)]
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
