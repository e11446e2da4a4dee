"""The pages about a picked checkpoint, from the facts of its run: the model card and the results. Without torch."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pricer
from pricer.commands.parts.verdicts import judge_choice, load_leads
from pricer.config import RunConfig
from pricer.core.checkpoints import Checkpoint
from pricer.core.early_stopping import EarlyStop
from pricer.core.held_out import HeldOutCheck
from pricer.core.items import PromptTemplate, Split, name_split
from pricer.core.prices import PriceFormat, PriceStyle
from pricer.core.selection import Selection, find_test_evaluation
from pricer.data.hub_data import find_hub_files
from pricer.errors import DataError, HubError
from pricer.redaction import hub_address
from pricer.stores.bases import names_a_folder
from pricer.stores.hub import Hub
from pricer.stores.runs import Run
from pricer.views.card_results import Origin
from pricer.views.model_card import Card, Recipe, model_card

README = "README.md"
RESULTS = ".eval_results/pricer.yaml"
# The bundled base has the licence of pricer.
_OWN_LICENCE = "apache-2.0"
# The Hub's names for metrics (https://huggingface.co/metrics) where they are not ours.
_HUB_METRICS = {"r2": "r_squared"}


def card_pages(run: Run, repo: str, checkpoint: Checkpoint, selection: Selection, dropped: int) -> dict[str, bytes]:
    """The files about a pick for the repository of its run, by their paths: README.md, which says what was chosen, how
    it was measured and how to load it; and the results, if the data set is on the Hub.

    `dropped` is the number of checkpoints that a race did not score on all items.
    """
    card = make_card(run, repo, checkpoint, selection, dropped)
    pages = {README: render_card(card), RESULTS: render_results(card)}
    return {path: text.encode() for path, text in pages.items() if text is not None}


def make_card(run: Run, repo: str, checkpoint: Checkpoint, selection: Selection, dropped: int) -> Card:
    """The model card of a pick."""
    assert checkpoint.commit is not None  # the checkpoint is in the repository
    config, facts, evaluations = run.config(), run.facts(), run.evaluations.all()
    versions = facts.get("versions")
    test = find_test_evaluation(selection.chosen, evaluations)
    confirmed = [one for one in run.confirmations() if one.candidate.id == checkpoint.id]
    return model_card(
        repo=repo,
        checkpoint=checkpoint,
        commit=checkpoint.commit,
        selection=selection,
        evaluations=evaluations,
        leads=load_leads(run, test or selection.chosen),
        verdicts=judge_choice(run, selection.chosen, selection.metric, selection.comparison, selection.ranking, test),
        base_license=_licence(config, checkpoint),
        recipe=_recipe(config, facts, is_foreign=checkpoint.prompt_fingerprint is None),
        versions=versions if isinstance(versions, dict) else {},
        pricer_version=pricer.__version__,
        dropped=dropped,
        coverage=confirmed[-1].coverage if confirmed else (),
        near_copies=confirmed[-1].near_copies if confirmed else None,
        held_out=HeldOutCheck.from_fact(facts.get("held_out")),
    )


def render_card(card: Card) -> str:
    """A model card as the text of README.md, with metadata in the format of the Hub. Sends nothing."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Price prediction",
            dataset_type=card.dataset_type,
            dataset_name=card.dataset_name,
            dataset_config=card.dataset_config,
            dataset_split=result.split,
            dataset_revision=card.dataset_revision,
            dataset_args={"items": result.items},
            metric_type=_HUB_METRICS.get(result.metric, result.metric),
            metric_name=result.label,
            metric_value=result.value,
        )
        for result in card.results
    ]
    data = ModelCardData(
        base_model=card.base_model,
        base_model_relation="adapter" if card.base_model else None,
        datasets=list(card.datasets) or None,
        eval_results=results or None,
        library_name="peft",
        license=card.license,
        model_name=card.repo.split("/")[1] if results else None,  # the name of the list of results, not of the card
        pipeline_tag="text-generation",
        tags=list(card.tags),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card.body}"))


def render_results(card: Card) -> str | None:
    """The results on the test items, or else on the validation items, in the format of `.eval_results/*.yaml`. None if
    the data set is not on the Hub: that format knows no other. Sends nothing.

    https://huggingface.co/docs/hub/eval-results describes it. An entry has one number, so each metric is a task.
    """
    if card.dataset_id is None or not card.results:
        return None
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    entries = [
        EvalResultEntry(
            dataset_id=card.dataset_id,
            task_id=f"price-{result.metric.replace('_', '-')}",
            value=result.value,
            dataset_revision=card.dataset_revision,
            source_url=hub_address(card.repo),
            source_name="pricer",
            notes=f"{result.label}; {result.items}",
        )
        for result in card.results
        if result.items == card.results[0].items
    ]
    return str(yaml_dump(eval_result_entries_to_yaml(entries)))


def _licence(config: RunConfig, checkpoint: Checkpoint) -> str | None:
    """The Hub's identifier for the licence of the base; None if unknown."""
    if config.model.base.startswith("builtin:"):
        return _OWN_LICENCE
    if not _base_is_on_hub(config):
        return None
    try:
        return Hub(checkpoint.base, attempts=3).licence(checkpoint.base_revision)
    except HubError:
        return None  # the card then says that the licence is not known


def _recipe(config: RunConfig, facts: Mapping[str, Any], *, is_foreign: bool) -> Recipe:
    prompt = config.prompt
    style: PriceStyle = "padded" if prompt.price_format == "padded" else "plain"  # settled when the run began
    unit = config.data.price_unit
    price_format = PriceFormat(style, prompt.price_width, unit.decimals, unit.symbol)
    template = PromptTemplate(prompt.question, prompt.lead, price_format, prompt.max_length)
    on_hub = _data_is_on_hub(config)
    origin = _find_origin(config, facts, on_hub=on_hub, is_foreign=is_foreign)
    train_items = facts.get("items", {}).get("train", 0)
    stop = EarlyStop.from_fact(facts.get("stopped_early"))
    return Recipe(config, template, train_items, _base_is_on_hub(config), on_hub, origin, stop)


def _find_origin(config: RunConfig, facts: Mapping[str, Any], *, on_hub: bool, is_foreign: bool) -> Origin:
    """Where the held-out items come from. Only a split that a Hub data set itself names has that name."""
    data, by_time = config.data, config.data.time_column is not None
    unknown = Origin(None, by_time)
    if not data.keep_splits or data.source.startswith("builtin:"):
        return Origin({}, by_time)
    recorded = facts.get("data")
    own = recorded.get("own_splits") if isinstance(recorded, dict) else None
    known = unknown if own is None else Origin(dict.fromkeys(own), by_time)
    if not on_hub or data.split_column is not None or data.val_source or data.test_source:
        return known
    with suppress(DataError, OSError):
        # What the data set holds at this commit was recorded when its items were read.
        splits = find_hub_files(data).splits
        named = {str(split): [name for name in splits if name_split(name) is split] for split in Split}
        names = {split: found[0] if len(found) == 1 else None for split, found in named.items() if found}
        trained = () if data.trained_splits in (None, "unknown") else data.trained_splits
        whole = names.keys() - set(trained)
        if (is_foreign or trained) and not whole >= {str(Split.VAL), str(Split.TEST)}:
            return unknown  # the missing one was cut from the other, which is then not whole
        return Origin(names, by_time)
    return known


def _base_is_on_hub(config: RunConfig) -> bool:
    base = config.model.base
    return not names_a_folder(base) and not Path(base).is_dir()


def _data_is_on_hub(config: RunConfig) -> bool:
    source = config.data.source
    return not names_a_folder(source) and not Path(source).suffix
