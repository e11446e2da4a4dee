"""What the terminal and the report say alike: metrics and their differences in their units, and who is told apart."""

from collections.abc import Sequence

from pricer.core.comparison import Evidence, Standing

IN_DOLLARS = ("mae", "median_ae")
SHARES = ("mape", "hit_rate", "no_price")


def measured(value: float, metric: str) -> str:
    """A metric: in dollars, in percent, or as the number it is."""
    if metric in IN_DOLLARS:
        return f"${value:,.2f}"
    return f"{value:.1%}" if metric in SHARES else f"{value:.3f}"


def difference(amount: float, metric: str) -> str:
    """A difference in a metric; shares in points of a percent."""
    sign, size = ("−" if amount < 0 else ""), abs(amount)
    if metric in IN_DOLLARS:
        return f"{sign}${size:,.2f}"
    return f"{sign}{100 * size:.2f} points" if metric in SHARES else f"{sign}{size:.4f}"


def named(step: int | None, members: Sequence[int] = ()) -> str:
    """A checkpoint by its step, a soup by those of its members."""
    if members:
        return f"the average of steps {', '.join(f'{one:,}' for one in members)}"
    return f"step {step or 0:,}"


def behind(standing: Standing, metric: str) -> str:
    """By how much a checkpoint is behind the best, with the 95 % interval of that; – for the best itself."""
    if standing.interval is None:
        return "–"
    low, high = (difference(end, metric).replace("$", "").removesuffix(" points") for end in standing.interval)
    return f"{difference(standing.behind, metric)} ({low} to {high})"


def told_apart(evidence: Evidence) -> str:
    """How many cannot be told apart from the best, and what it would take."""
    others = len(evidence.standings) - 1
    alike = sum(standing.indistinguishable for standing in evidence.standings) - 1
    line = f"{alike:,} of the {others:,} others cannot be told apart from the best"
    if evidence.more_items is None:
        return line
    return f"{line}; the runner-up could be on about {evidence.more_items:,} more items"
