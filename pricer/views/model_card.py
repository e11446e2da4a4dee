"""Model cards: the README of a Hub repository about the chosen checkpoint and its measurements.

The text is in model_card.md.jinja. This module prepares its values.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pricer.core.breakdowns import NearCopies
from pricer.core.checkpoints import Checkpoint
from pricer.core.comparison import Lead
from pricer.core.early_stopping import EarlyStop
from pricer.core.evaluation import Evaluation
from pricer.core.held_out import HeldOutCheck
from pricer.core.intervals import CoverageReport
from pricer.core.items import PromptTemplate
from pricer.core.metrics import METRICS, Metric
from pricer.core.selection import Selection, find_test_evaluation, other_test_looks
from pricer.core.units import PriceUnit
from pricer.core.verdicts import Verdict
from pricer.redaction import hub_address
from pricer.views import formatting
from pricer.views.card_results import Origin, Result, describe_baselines, list_results
from pricer.views.markdown import code, one_line, python_literal, render_markdown
from pricer.views.tables import describe_near_copies
from pricer.views.verdicts import describe_verdict

if TYPE_CHECKING:
    from pricer.config import RunConfig

TAGS = ("lora", "price-prediction", "pricer")
SIGNATURE = "Written by pricer"
"""The beginning of the last line of every card. A README without it is not by pricer."""

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
# The pattern of the Hub's licence identifiers. The Hub refuses a card with an unknown licence.
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of the run, with every `auto` settled. `base_on_hub` and `data_on_hub` say whether base and data
    come from the Hub: the name of a folder, for example `models/llama`, can look like a Hub id. `origin` says where the
    held-out items come from. `stop` says why training was stopped early; None if it was not.
    """

    config: "RunConfig"
    template: PromptTemplate
    train_items: int
    base_on_hub: bool
    data_on_hub: bool
    origin: Origin
    stop: EarlyStop | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """Metadata for the Hub, None or empty if unknown, and the Markdown in `body`. `datasets` were used for training,
    the `results` were measured on `dataset_id` (None: it is not on the Hub) or, in words, `dataset_name`.
    """

    repo: str
    license: str | None
    base_model: str | None
    datasets: tuple[str, ...]
    tags: tuple[str, ...]
    dataset_id: str | None
    dataset_name: str
    dataset_config: str | None
    dataset_revision: str | None
    results: tuple[Result, ...]
    body: str

    @property
    def dataset_type(self) -> str:
        """The name of the data set in the metadata, which must have one: its Hub id, or its name as an identifier."""
        return self.dataset_id or re.sub(r"[^A-Za-z0-9._-]+", "-", self.dataset_name).strip("-") or "unnamed"


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
    leads: Sequence[Lead] = (),
    verdicts: Sequence[Verdict] = (),
    dropped: int = 0,
    coverage: Sequence[CoverageReport] = (),
    near_copies: NearCopies | None = None,
    held_out: HeldOutCheck | None = None,
) -> Card:
    """The card of `checkpoint`, which `selection` chose, at `commit` of the repository `repo`.

    The card shows those of the run's `evaluations` that are comparable with the selection. It leaves out a
    `base_license` that is not in the Hub's format. `versions` are the package versions of the training. `leads` are
    over the baselines, and `verdicts` on the pick, on the test items if there are any, otherwise on the validation
    items. `dropped` is the number of checkpoints that a race did not score on all items. `coverage` is measured on test
    items; empty if unknown. `near_copies`: empty if unknown. `held_out` is about the adapters of another trainer. Text
    from outside cannot become markup.

    A ValueError if `repo` is not `user/name`, or if `selection` chose another checkpoint.
    """
    if not _HUB_ID.fullmatch(repo) or "/" not in repo:
        raise ValueError(f"{repo!r} cannot name a repository")
    if checkpoint.id != selection.candidate.id:
        raise ValueError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not the checkpoint that was chosen")
    val, comparison, config = selection.chosen, selection.comparison, recipe.config
    test = find_test_evaluation(val, evaluations)
    shown = test or val
    license_id = base_license if base_license != "unknown" and _LICENSE.fullmatch(base_license or "") else None
    is_foreign = checkpoint.prompt_fingerprint is None
    # The adapter of another trainer may name a folder of a machine that nobody knows.
    base = config.model.base if is_foreign else checkpoint.base
    base = base if recipe.base_on_hub else _without_folder(base)
    base_is_builtin = not recipe.base_on_hub and base.startswith("builtin:")
    base_id = base if recipe.base_on_hub and _HUB_ID.fullmatch(base) else None
    data = config.data.source if recipe.data_on_hub else _without_folder(config.data.source)
    data_id = data if recipe.data_on_hub and _HUB_ID.fullmatch(data) else None
    targets = config.adapter.target_modules
    body = render_markdown(
        "model_card.md.jinja",
        _filters(),
        repo=repo,
        model_name=repo.split("/")[1],
        checkpoint=checkpoint,
        commit=commit,
        is_foreign=is_foreign,
        selection=selection,
        val=val,
        test=test,
        shown=shown,
        shown_items=recipe.origin.describe(shown, code),
        code=code,
        verdicts=[describe_verdict(one, val.spec.price_unit) for one in verdicts],
        lead_of={lead.baseline: lead for lead in leads},
        held_out=held_out,
        baselines=describe_baselines([e.name for e in _baselines_beside(shown, evaluations)], code),
        columns_of=lambda chosen: [chosen, *_baselines_beside(chosen, evaluations)],
        looks=sorted(set(other_test_looks(evaluations, checkpoint.id, test.spec.fingerprint))) if test else (),
        dropped=dropped,
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
        base_link=_link(base, base_id),
        base_is_builtin=base_is_builtin,
        place_of_base=_place(base, is_builtin=base_is_builtin),
        names_its_base=recipe.base_on_hub and checkpoint.base == base,
        data=data,
        data_link=_link(data, data_id and f"datasets/{data_id}"),
        targets=[targets] if isinstance(targets, str) else sorted(targets),
        versions=", ".join(f"{name} {versions[name]}" for name in sorted(versions)),
        license=license_id,
        coverage=coverage,
        near_copies=near_copies
        and test
        and describe_near_copies(near_copies, test.metric("mae").n, val.spec.price_unit),
        signature=SIGNATURE,
        pricer_version=pricer_version,
    )
    return Card(
        repo=repo,
        license=license_id,
        base_model=base_id,
        datasets=(data_id,) if data_id and not is_foreign else (),
        tags=TAGS,
        dataset_id=data_id,
        dataset_name=one_line(data) or "unnamed",
        dataset_config=config.data.subset and one_line(config.data.subset) if recipe.data_on_hub else None,
        dataset_revision=one_line(config.data.revision) if config.data.revision and recipe.data_on_hub else None,
        results=list_results(val, test, recipe.origin),
        body=body,
    )


def _filters() -> dict[str, Callable[..., object]]:
    return {
        "literal": python_literal,
        # A run that another trainer made can have settings that are still auto.
        "setting": lambda value: value if isinstance(value, str) else f"{value:g}",
        "epoch": lambda epoch: "–" if epoch is None else f"{epoch:.2f}",
        "label": formatting.label,
        "description": formatting.description,
        "price": formatting.price,
        "confidence_set": formatting.confidence_set,
        "with_interval": formatting.with_interval,
        "with_half_width": formatting.with_half_width,
        "above": _above,
        "coverage": lambda held: formatting.share_with_interval(held.share, held.interval),
    }


def _baselines_beside(chosen: Evaluation, evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    found = [e for e in evaluations if e.candidate.is_baseline and e.spec.fingerprint == chosen.spec.fingerprint]
    return sorted(found, key=lambda e: e.name)


def _place(base: str, *, is_builtin: bool) -> str:
    """The Python code for the place of a base."""
    literal = python_literal(base.removeprefix("builtin:") if is_builtin else base)
    return f'str(files("pricer") / "assets" / {literal})' if is_builtin else literal


def _link(name: str, page: str | None) -> str:
    """The name as code, with a link to its page on the Hub if it has one. The page is a Hub id, which is harmless."""
    return f"[{code(name)}]({hub_address(page)})" if page else code(name)


def _above(lead: Lead, unit: PriceUnit) -> str:
    """How much higher the error of a baseline is, with its interval."""
    return formatting.difference_with_interval(lead.lower_by, lead.interval, "mae", unit)


def _lead(selection: Selection) -> str:
    """The lead of the chosen one over the runner-up in words; empty if there is no runner-up."""
    if selection.margin is None:
        return ""
    if not selection.margin:
        return "with the same value as the next, which is later in training"
    metric, unit, comparison = selection.metric, selection.chosen.spec.price_unit, selection.comparison
    own = None if comparison is None else comparison.difference(selection.candidate)
    if own is None:
        return f"{formatting.difference(selection.margin, metric, unit)} better than the next"
    low, high = own.interval
    better_by = formatting.difference_with_interval(-own.worse_by, (-high, -low), metric, unit)
    return f"{better_by} better than the best of the others"


def _without_folder(name: str) -> str:
    """The last part of a local path: a public card must not show the folders of somebody's disk."""
    return name if name.startswith("builtin:") else re.split(r"[/\\]", name.rstrip("/\\"))[-1]
