"""Model cards: the README of a Hub repository about the chosen checkpoint and its measurements.

The text is in model_card.md.jinja. This module prepares its values.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pricer.core.breakdowns import NearCopies
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation
from pricer.core.intervals import CoverageReport
from pricer.core.items import PromptTemplate, Split
from pricer.core.metrics import METRICS, Metric
from pricer.core.selection import Selection, other_test_looks
from pricer.views import formatting
from pricer.views.markdown import one_line, render_markdown
from pricer.views.tables import describe_near_copies

if TYPE_CHECKING:
    from pricer.config import RunConfig

TAGS = ("lora", "price-prediction", "pricer")

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
# The pattern of the Hub's licence identifiers. The Hub refuses a card with an unknown licence.
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of the run, with every `auto` settled. `base_on_hub` and `data_on_hub` say whether base and data
    come from the Hub: the name of a folder, for example `models/llama`, can look like a Hub id.
    """

    config: "RunConfig"
    template: PromptTemplate
    train_items: int
    base_on_hub: bool
    data_on_hub: bool


@dataclass(frozen=True, slots=True)
class Result:
    """The chosen checkpoint's value of one metric on one split; `label` is the metric in words."""

    split: str
    metric: str
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Card:
    """Metadata for the Hub, None or empty if unknown, and the Markdown in `body`."""

    model_name: str
    license: str | None
    base_model: str | None
    datasets: tuple[str, ...]
    tags: tuple[str, ...]
    dataset_name: str
    dataset_type: str
    dataset_revision: str | None
    results: tuple[Result, ...]
    body: str


def model_card(
    *,
    repo: str,
    checkpoint: Checkpoint,
    commit: str,
    selection: Selection,
    evaluations: Sequence[Evaluation],
    base_license: str | None,
    recipe: Recipe,
    versions: Mapping[str, str],
    pricer_version: str,
    dropped: int = 0,
    coverage: Sequence[CoverageReport] = (),
    near_copies: NearCopies | None = None,
) -> Card:
    """The card of `checkpoint`, which `selection` chose, at `commit` of the repository `repo`.

    The card shows those of the run's `evaluations` that are comparable with the selection. It leaves out a
    `base_license` that is not in the Hub's format. `versions` are the package versions of the training. `dropped` is
    the number of checkpoints that a race did not score on all items. `coverage` is measured on test items; empty if
    unknown, as are `near_copies`. Text from outside cannot become markup.

    A ValueError if `repo` is not `user/name`, or if `selection` chose another checkpoint.
    """
    if not _HUB_ID.fullmatch(repo) or "/" not in repo:
        raise ValueError(f"{repo!r} cannot name a repository")
    if checkpoint.id != selection.candidate.id:
        raise ValueError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not the checkpoint that was chosen")
    val, comparison, config = selection.chosen, selection.comparison, recipe.config
    test = _test_of(val, evaluations)
    license_id = base_license if base_license != "unknown" and _LICENSE.fullmatch(base_license or "") else None
    base = checkpoint.base if recipe.base_on_hub else _without_folder(checkpoint.base)
    data = config.data.source if recipe.data_on_hub else _without_folder(config.data.source)
    data_id = data if recipe.data_on_hub and _HUB_ID.fullmatch(data) else None
    targets = config.adapter.target_modules
    model_name = repo.split("/")[1]
    body = render_markdown(
        "model_card.md.jinja",
        _filters(),
        repo=repo,
        model_name=model_name,
        checkpoint=checkpoint,
        commit=commit,
        selection=selection,
        val=val,
        test=test,
        columns_of=lambda chosen: [chosen, *_baselines_beside(chosen, evaluations)],
        looks=sorted(set(other_test_looks(evaluations, checkpoint.id, test.spec.fingerprint))) if test else (),
        dropped=dropped,
        soups=sum(e.candidate.is_soup for e in selection.ranking),
        lead=_lead(selection),
        unit=val.spec.price_unit,
        rule=val.spec.rule,
        corrected=comparison
        and Metric(selection.metric, comparison.corrected, comparison.corrected_interval, 0, "lower"),
        metrics=METRICS,
        step_metrics=[name for name, metric in METRICS.items() if metric.is_essential or name == selection.metric],
        by_step=sorted(selection.ranking, key=lambda e: e.candidate.order),
        greedy=next((replace(metric, name="mae") for metric in val.estimators if metric.name == "greedy"), None),
        recipe=recipe,
        config=config,
        base=base,
        data=data,
        targets=[targets] if isinstance(targets, str) else sorted(targets),
        versions=", ".join(f"{name} {versions[name]}" for name in sorted(versions)),
        license=license_id,
        coverage=coverage,
        near_copies=near_copies
        and test
        and describe_near_copies(near_copies, test.metric("mae").n, val.spec.price_unit),
        pricer_version=pricer_version,
    )
    return Card(
        model_name=model_name,
        license=license_id,
        base_model=base if recipe.base_on_hub and _HUB_ID.fullmatch(base) else None,
        datasets=(data_id,) if data_id else (),
        tags=TAGS,
        dataset_name=one_line(data) or "unnamed",
        dataset_type=data_id or re.sub(r"[^A-Za-z0-9._-]+", "-", data).strip("-") or "unnamed",
        dataset_revision=one_line(config.data.revision) if config.data.revision and recipe.data_on_hub else None,
        results=(*_stated(val), *(_stated(test) if test else ())),
        body=body,
    )


def _filters() -> dict[str, Callable[..., object]]:
    return {
        "literal": _literal,
        "steps": _steps,
        # A run that another trainer made can have settings that are still auto.
        "setting": lambda value: value if isinstance(value, str) else f"{value:g}",
        "epoch": lambda epoch: "–" if epoch is None else f"{epoch:.2f}",
        "label": formatting.label,
        "description": formatting.description,
        "price": formatting.price,
        "step_list": formatting.step_list,
        "significance": formatting.significance,
        "with_interval": formatting.with_interval,
        "with_half_width": formatting.with_half_width,
        "coverage": lambda held: formatting.share_with_interval(held.share, held.interval),
    }


def _test_of(val: Evaluation, evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The evaluation of the same checkpoint on the test split, otherwise under the same spec. If there are several, the
    one with the largest number of items.
    """
    alike = [
        e
        for e in evaluations
        if e.candidate.id == val.candidate.id
        and e.spec.split is Split.TEST
        and replace(e.spec, split=val.spec.split, limit=val.spec.limit) == val.spec
    ]
    return max(alike, key=lambda e: e.metric("mae").n, default=None)


def _baselines_beside(chosen: Evaluation, evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    found = [e for e in evaluations if e.candidate.is_baseline and e.spec.fingerprint == chosen.spec.fingerprint]
    return sorted(found, key=lambda e: e.name)


def _stated(evaluation: Evaluation) -> list[Result]:
    return [
        Result(str(evaluation.spec.split), name, formatting.description(name, evaluation.spec.rule), metric.value)
        for name in METRICS
        if (metric := evaluation.metric(name)).value is not None
    ]


def _lead(selection: Selection) -> str:
    """The lead of the chosen one over the runner-up in words; empty if there is no runner-up."""
    if selection.margin is None:
        return ""
    if not selection.margin:
        return "level with the next, and the earlier"
    second, unit = selection.ranking[1], selection.chosen.spec.price_unit
    difference = selection.comparison and selection.comparison.difference(second.candidate)
    if difference and difference.interval:
        lead = formatting.difference_to_best(difference, selection.metric, unit)
    else:
        lead = formatting.difference(selection.margin, selection.metric, unit)
    return f"{lead} better than the next"


def _steps(evaluation: Evaluation) -> str:
    return " + ".join(f"{step:,}" for step in evaluation.candidate.members or [evaluation.candidate.step or 0])


def _without_folder(name: str) -> str:
    """The last part of a local path: a public card must not show the folders of somebody's disk."""
    return name if name.startswith("builtin:") else re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _literal(text: str) -> str:
    """A Python string literal for `text` without special characters of Markdown or of the Hub's mathematics: it has no
    line break, no backtick, no $$ and no two backslashes in a row. The delimiters of mathematics are listed in
    https://huggingface.co/docs/hub/model-cards, "Can I write LaTeX in my model card?".
    """
    escaped = "".join(
        {"\n": "\\n", '"': '\\"'}.get(c)
        or (c if c.isprintable() and c not in "\\`" and not (c == "$" and before == "$") else _escape(c))
        for before, c in zip(" " + text, text, strict=False)
    )
    return f'"{escaped}"'


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
