"""Model cards: what the README of a Hub repository says about the chosen checkpoint, and how that was measured.

The words are in model_card.md.jinja; this module prepares the values in them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation
from pricer.core.intervals import CoverageReport
from pricer.core.items import PromptTemplate, Split
from pricer.core.metrics import METRICS, Metric
from pricer.core.selection import Selection, looks_besides
from pricer.views import formatting

if TYPE_CHECKING:
    from pricer.config import RunConfig

TAGS = ("lora", "price-prediction", "pricer")

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
# The Hub's own identifiers look like this, and it refuses a card with a licence that it does not know.
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
# Characters that mean nothing to Markdown in the middle of a code span.
_PLAIN = re.compile(r"[\w ./:@+,-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the run was set, every `auto` settled. `base_on_hub` and `data_on_hub` say where those come from: a folder
    `models/llama` looks like a Hub id and is none.
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
    """Metadata for the Hub, None or empty where nothing true can be stated, and `body`, the Markdown."""

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
) -> Card:
    """The card of `checkpoint`, the one that `selection` chose, as it lies at `commit` of the repository `repo`.

    Of the run's `evaluations`, those comparable with the selection are shown. A `base_license` that cannot be a licence
    of the Hub is not claimed. `versions` are of the packages that trained. `dropped` counts the checkpoints that a race
    measured only in part. `coverage` is how far intervals of this checkpoint held on test items, empty if unknown. No
    text from outside can be more than text in the card.

    A repository that is not `user/name`, or a checkpoint that was not the one chosen, is a ValueError.
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
    body = (
        _environment()
        .get_template("model_card.md.jinja")
        .render(
            repo=repo,
            model_name=model_name,
            checkpoint=checkpoint,
            commit=commit,
            selection=selection,
            val=val,
            test=test,
            columns_of=lambda chosen: [chosen, *_baselines_beside(chosen, evaluations)],
            looks=sorted(set(looks_besides(evaluations, checkpoint.id, test.spec.fingerprint))) if test else (),
            dropped=dropped,
            soups=sum(e.candidate.is_soup for e in selection.ranking),
            lead=_lead(selection),
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
            pricer_version=pricer_version,
        )
    )
    return Card(
        model_name=model_name,
        license=license_id,
        base_model=base if recipe.base_on_hub and _HUB_ID.fullmatch(base) else None,
        datasets=(data_id,) if data_id else (),
        tags=TAGS,
        dataset_name=_line(data) or "unnamed",
        dataset_type=data_id or re.sub(r"[^A-Za-z0-9._-]+", "-", data).strip("-") or "unnamed",
        dataset_revision=_line(config.data.revision) if config.data.revision and recipe.data_on_hub else None,
        results=(*_stated(val), *(_stated(test) if test else ())),
        body=body,
    )


@cache
def _environment() -> Environment:
    # Markdown is not HTML, so nothing is escaped by itself: text from outside goes through `code` or `literal`.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": _code,
        "literal": _literal,
        "steps": _steps,
        "number": lambda count: f"{count:,}",
        "epoch": lambda epoch: "–" if epoch is None else f"{epoch:.2f}",
        "label": formatting.label,
        "description": formatting.description,
        "dollars": formatting.dollars,
        "step_list": formatting.step_list,
        "significance": formatting.significance,
        "with_interval": formatting.with_interval,
        "with_half_width": formatting.with_half_width,
        "coverage": lambda held: formatting.share_with_interval(held.share, held.interval),
    }
    return environment


def _test_of(val: Evaluation, evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The same checkpoint on the test split, all else being equal; of several, the evaluation with most items."""
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
        Result(evaluation.spec.split.value, name, formatting.description(name), metric.value)
        for name in METRICS
        if (metric := evaluation.metric(name)).value is not None
    ]


def _lead(selection: Selection) -> str:
    """By how much the chosen one is better than the next; empty where there is no next."""
    if selection.margin is None:
        return ""
    if not selection.margin:
        return "level with the next, and the earlier"
    second = selection.ranking[1]
    difference = selection.comparison and selection.comparison.difference(second.candidate)
    if difference and difference.interval:
        lead = formatting.difference_to_best(difference, selection.metric)
    else:
        lead = formatting.difference(selection.margin, selection.metric)
    return f"{lead} better than the next"


def _steps(evaluation: Evaluation) -> str:
    return " + ".join(f"{step:,}" for step in evaluation.candidate.members or [evaluation.candidate.step or 0])


def _without_folder(name: str) -> str:
    """A local path as the public may see it: where it lies on somebody's disk is nobody's business."""
    return name if name.startswith("builtin:") else re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _line(text: str) -> str:
    """One line of characters that can be seen: no breaks, no controls, nothing that turns the writing direction."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _code(text: str) -> str:
    """Any text as code, within a line or a table cell.

    A code span cannot hold every text: the Hub renders mathematics before it reads Markdown, in spans too, and a pipe
    ends a cell. So what has more than plain characters in it has its punctuation spelled as entities.
    """
    text = _line(text)
    if _PLAIN.fullmatch(text):
        return f"`{text}`"
    return f"<code>{re.sub(r'[!-/:-@[-`{-~]', lambda found: f'&#{ord(found[0])};', text)}</code>"


def _literal(text: str) -> str:
    """A Python string that means exactly `text`, and in which neither Markdown nor the Hub's mathematics see anything:
    no line break, no backtick, no $$ and no two backslashes in a row. (Delimiters of the latter: "Can I write LaTeX in
    my model card?" in https://huggingface.co/docs/hub/model-cards.)
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
