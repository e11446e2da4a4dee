"""Tables and other parts of the page that are no charts, as HTML; whatever they are given is text in it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pricer.core.evaluation import Evaluation
from pricer.core.metrics import METRICS
from pricer.views.formatting import measured, not_significant, worse_by
from pricer.views.report.values import Behind, HeldOut, RunReport, Tested
from pricer.views.report.wording import asked, dollars, escaped, figure, half, share, shortened

# More columns stand closer together, and the first stays where it is when the others are scrolled.
_MANY = 10


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, kinds: Sequence[str] = (), text_last: bool = False
) -> str:
    """A table in a frame that scrolls by itself where it is too wide. The first column is text, the others are numbers,
    with `text_last` but for the last one; `kinds` are CSS classes, one for each row.
    """
    last = len(columns) - 1
    dense = ' class="dense"' if len(columns) > _MANY else ""
    css = ["text" if place == 0 or (text_last and place == last) else "number" for place in range(len(columns))]
    head = "".join(f'<th class="{kind}">{escaped(column)}</th>' for kind, column in zip(css, columns, strict=True))
    body = []
    for index, row in enumerate(rows):
        cells = "".join(f'<td class="{kind}">{escaped(cell)}</td>' for kind, cell in zip(css, row, strict=True))
        row_kind = f' class="{kinds[index]}"' if kinds and kinds[index] else ""
        body.append(f"<tr{row_kind}>{cells}</tr>")
    return (
        f'<div class="frame"><table{dense}><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Names and their values."""
    body = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in rows)
    return f'<div class="frame"><table class="pairs"><tbody>{body}</tbody></table></div>'


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that stands out: what it is, the number, what is said smaller `after` it, and a line about it, perhaps
    one `more`.
    """

    what: str
    number: str
    about: str
    kind: str = ""
    after: str = ""
    more: str = ""


def tiles(report: RunReport) -> list[Tile]:
    """The numbers at the top: the one to publish apart from the one that took part in the choice."""
    found = []
    if report.tested:
        tested = report.tested.evaluation
        mae = tested.metric("mae")
        about = f"{tested.name} on {mae.n:,} test items, looked at once: the number to publish"
        found.append(Tile("Test error", dollars(mae.value), about, "publish", half(mae.interval)))
    elif report.held_out and report.held_out.picked:
        about = f"the number to publish: pricer eval --checkpoint best --split test --run {report.name}"
        found.append(Tile("Test error", "not scored yet", about, "missing"))
    if report.held_out:
        found += _validation_tiles(report.held_out, report.tested)
    if len(report.training.loss):
        last = float(report.training.loss.value[-1])
        about = f"at step {int(report.training.loss.step[-1]):,}, the last that was logged"
        found.append(Tile("Training loss", "no number" if math.isnan(last) else f"{last:.3f}", about))
    return found


def _validation_tiles(held_out: HeldOut, tested: Tested | None) -> list[Tile]:
    chosen = held_out.chosen
    mae = chosen.metric("mae")
    if held_out.picked:
        about = f"{chosen.name} on {mae.n:,} items that took part in the choice: not the number to publish"
    else:
        about = f"{chosen.name}, the lowest so far on {mae.n:,} items; nothing is picked yet"
    found = [Tile("Validation error", dollars(mae.value), about, after=half(mae.interval), more=_corrected(held_out))]
    shown = tested.evaluation if tested else chosen
    baselines = tested.baselines if tested else held_out.baselines
    if baselines:
        best = min(baselines, key=lambda e: e.metric("mae").value or 0.0)
        bar, own = best.metric("mae").value, shown.metric("mae").value
        assert bar is not None  # means of at least one
        assert own is not None
        change = own / bar - 1 if bar else 0.0
        number = f"{abs(change):.0%} {'better' if change < 0 else 'worse'}"
        which = "test" if tested else "validation"
        about = f"than the best baseline, {best.name}: {dollars(bar)} on the same {which} items"
        found.append(Tile("Compared", number, about))
    hits, silent = shown.metric("hit_rate"), shown.metric("no_price")
    found.append(Tile("Hits", figure(hits), f"within $40 or 20 % of the price; no price said for {figure(silent)}"))
    return found


def _corrected(held_out: HeldOut) -> str:
    """What the metric that chose would be on other items; nothing where that is not known."""
    if held_out.comparison is None:
        return ""
    metric, comparison = held_out.metric, held_out.comparison
    low, high = (measured(end, metric).strip("$%") for end in comparison.corrected_interval)
    what = "" if metric == "mae" else f"{METRICS[metric].label} "
    return _breaking(f"{what}corrected for the choice: {measured(comparison.corrected, metric)} ({low} to {high})")


def tiles_html(found: Sequence[Tile]) -> str:
    """The tiles in a row, or in a column where there is no room."""
    parts = []
    for tile in found:
        lines = "".join(f"<p>{escaped(text)}</p>" for text in (tile.about, tile.more) if text)
        number = f'<p class="number">{escaped(tile.number)}<small>{escaped(tile.after)}</small></p>'
        parts.append(f'<div class="tile {escaped(tile.kind)}"><h3>{escaped(tile.what)}</h3>{number}{lines}</div>')
    return f'<div class="tiles">{"".join(parts)}</div>' if parts else ""


def ranking(held_out: HeldOut) -> str:
    """The checkpoints, best first by the metric of the choice, and the baselines below them. What is not significantly
    different from the best has a dot, and a line below says so.
    """
    better_is_lower = METRICS[held_out.metric].better == "lower"

    def place(evaluation: Evaluation) -> tuple[float, tuple[bool, bool, int, int, str]]:
        value = evaluation.metric(held_out.metric).value
        if value is None:
            return float("inf"), evaluation.candidate.order
        return (value if better_is_lower else -value), evaluation.candidate.order

    def kind(evaluation: Evaluation) -> str:
        difference = held_out.difference(evaluation)
        alike = difference is not None and not difference.is_of_best and not difference.is_significant
        return " ".join(["chosen"] * (evaluation is held_out.chosen) + ["alike"] * alike)

    ranked = sorted(held_out.checkpoints, key=place)
    rows = [*ranked, *held_out.baselines]
    columns, cells = _evaluations(rows)
    note = ""
    if held_out.comparison:
        # Beside the metric that they are about.
        after = columns.index(METRICS[held_out.metric].label) + 1
        columns[after:after] = ["worse than the best by", "probability best"]
        for row, evaluation in zip(cells, rows, strict=True):
            one = held_out.difference(evaluation)
            row[after:after] = [worse_by(one, held_out.metric), share(one.p_best)] if one else ["", ""]
        note = f'<p class="note alike">{escaped(not_significant(held_out.comparison))}.</p>'
    kinds = [kind(e) for e in ranked] + ["baseline"] * len(held_out.baselines)
    return table(columns, [[_breaking(cell) for cell in row] for row in cells], kinds=kinds) + note


def _breaking(cell: str) -> str:
    """A number in two lines where there is no room for one, its interval in the second."""
    return cell.replace("± ", "±\u00a0").replace(" to ", "\u00a0to\u00a0")


def tested_table(tested: Tested) -> str:
    """The chosen checkpoint and the baselines on test items."""
    columns, cells = _evaluations([tested.evaluation, *tested.baselines])
    return table(columns, cells, kinds=["chosen", *["baseline"] * len(tested.baselines)])


def _evaluations(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows."""
    columns = ["checkpoint", "epoch", *(metric.label for metric in METRICS.values()), "n"]
    rows = [
        [
            e.name,
            "" if e.candidate.epoch is None else f"{e.candidate.epoch:.2f}",
            *(figure(e.metric(name)) for name in METRICS),
            f"{e.metric('mae').n:,}",
        ]
        for e in evaluations
    ]
    return columns, rows


def worst_items(behind: Behind) -> str:
    """The items that the estimate was furthest off, and what they are."""
    rows = [
        [
            f"{'−' if miss.error < 0 else '+'}{dollars(abs(miss.error))}",
            dollars(miss.price),
            dollars(miss.estimate),
            shortened(miss.text, 220) if behind.texts else "(the data could not be read)",
        ]
        for miss in behind.breakdown.worst
    ]
    tail = behind.breakdown.tail
    carried = (
        ""
        if tail.share_of_error is None
        else f" The worst {tail.n:,} items ({share(tail.share_of_items)}) carry {tail.share_of_error:.0%} of the error."
    )
    of = asked(behind.evaluation.spec, len(behind.scores))
    note = f'<p class="note">{escaped(f"{behind.evaluation.name}: {of}.{carried}")}</p>'
    return note + table(["error", "price", "estimate", "item"], rows, text_last=True)


def categories(behind: Behind) -> str:
    """The error in each category, most items first."""
    rows = [
        [
            shortened(group.name or "(none)", 60),
            f"{group.n:,}",
            dollars(group.mae) + half(group.mae_interval),
            share(group.hit_rate),
            f"{group.no_price:,}",
        ]
        for group in behind.breakdown.categories
    ]
    return table(["category", "n", "MAE", "hits", "no price"], rows)


def coverage(behind: Behind) -> str:
    """What the intervals hold and how wide they are, in numbers."""
    rows = [
        [
            f"{report.level:.0%}",
            "–" if report.conformal is None else _held(report.conformal.share, report.conformal.interval),
            "–" if report.conformal is None else dollars(report.conformal.mean_width),
            _held(report.raw.share, report.raw.interval),
            dollars(report.raw.mean_width),
        ]
        for report in behind.breakdown.coverage
    ]
    return table(["interval", "covered", "mean width", "raw covered", "raw mean width"], rows)


def _held(held: float, interval: tuple[float, float]) -> str:
    return f"{share(held)} ({share(interval[0])} – {share(interval[1])})"
