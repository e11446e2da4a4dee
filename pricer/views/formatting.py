"""What the terminal and the report say alike: metrics and their differences in their units, candidates by name."""

from pricer.core.candidates import Candidate
from pricer.core.comparison import Comparison, Difference
from pricer.core.metrics import METRICS


def measured(value: float, metric: str) -> str:
    """A metric: in dollars, in percent, or as the number it is."""
    unit = METRICS[metric].unit
    if unit == "dollars":
        return f"${value:,.2f}"
    return f"{value:.1%}" if unit == "share" else f"{value:.3f}"


def difference(amount: float, metric: str) -> str:
    """A difference in a metric; shares in points of a percent."""
    unit, sign, size = METRICS[metric].unit, ("−" if amount < 0 else ""), abs(amount)
    if unit == "dollars":
        return f"{sign}${size:,.2f}"
    return f"{sign}{100 * size:.2f} points" if unit == "share" else f"{sign}{size:.4f}"


def named(candidate: Candidate) -> str:
    """A checkpoint by its step, a soup by those of its members."""
    if candidate.is_soup:
        return f"the average of steps {', '.join(f'{step:,}' for step in candidate.members)}"
    return f"step {candidate.step or 0:,}"


def worse_by(one: Difference, metric: str) -> str:
    """By how much a checkpoint is worse than the best, with the 95 % interval of that; – for the best itself."""
    if one.interval is None:
        return "–"
    low, high = (difference(end, metric).replace("$", "").removesuffix(" points") for end in one.interval)
    return f"{difference(one.worse_by, metric)} ({low} to {high})"


def not_significant(comparison: Comparison) -> str:
    """How many are not significantly different from the best, and what it would take."""
    others = comparison.others
    alike = sum(not one.is_significant for one in others)
    verb = "is" if alike == 1 else "are"
    line = f"{alike:,} of the {len(others):,} others {verb} not significantly different from the best"
    if comparison.more_items is None:
        return line
    return f"{line}; the runner-up could be on about {comparison.more_items:,} more items"
