"""The model card of a picked checkpoint: the facts of its run as the text of a README. Without torch."""

from pathlib import Path

import pricer
from pricer.config import RunConfig
from pricer.core.checkpoints import Checkpoint
from pricer.core.items import PromptTemplate
from pricer.core.prices import PriceFormat, PriceStyle
from pricer.core.selection import Selection
from pricer.errors import HubError
from pricer.stores.bases import names_a_folder
from pricer.stores.hub import Hub
from pricer.stores.runs import Run
from pricer.views.model_card import Card, Recipe, model_card

# The bundled base has the licence of pricer.
_OWN_LICENCE = "apache-2.0"


def card_text(
    run: Run,
    repo: str,
    checkpoint: Checkpoint,
    selection: Selection,
    dropped: int,
) -> str:
    """The README of the run's repository: which checkpoint was chosen, how it was measured, and how to load it.

    `dropped` is the number of checkpoints that a race did not score on all items.
    """
    assert checkpoint.commit is not None  # the checkpoint is in the repository
    config, facts = run.config(), run.facts()
    versions = facts.get("versions")
    confirmed = [one for one in run.confirmations() if one.candidate.id == checkpoint.id]
    card = model_card(
        repo=repo,
        checkpoint=checkpoint,
        commit=checkpoint.commit,
        selection=selection,
        evaluations=run.evaluations.all(),
        base_license=_licence(config, checkpoint),
        recipe=_recipe(config, facts.get("items", {}).get("train", 0)),
        versions=versions if isinstance(versions, dict) else {},
        pricer_version=pricer.__version__,
        dropped=dropped,
        coverage=confirmed[-1].coverage if confirmed else (),
        near_copies=confirmed[-1].near_copies if confirmed else None,
    )
    return render_card(card)


def render_card(card: Card) -> str:
    """A model card as the text of README.md, with metadata in the format of the Hub. Sends nothing."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Price prediction",
            dataset_type=card.dataset_type,
            dataset_name=card.dataset_name,
            dataset_split=result.split,
            dataset_revision=card.dataset_revision,
            metric_type=result.metric,
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
        model_name=card.model_name if results else None,  # the name of the list of results, not of the card
        pipeline_tag="text-generation",
        tags=list(card.tags),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card.body}"))


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


def _recipe(config: RunConfig, train_items: int) -> Recipe:
    prompt = config.prompt
    style: PriceStyle = "padded" if prompt.price_format == "padded" else "plain"  # settled when the run began
    unit = config.data.price_unit
    price_format = PriceFormat(style, prompt.price_width, unit.decimals, unit.symbol)
    template = PromptTemplate(prompt.question, prompt.lead, price_format, prompt.max_length)
    return Recipe(config, template, train_items, _base_is_on_hub(config), _data_is_on_hub(config))


def _base_is_on_hub(config: RunConfig) -> bool:
    base = config.model.base
    return not names_a_folder(base) and not Path(base).is_dir()


def _data_is_on_hub(config: RunConfig) -> bool:
    source = config.data.source
    return not names_a_folder(source) and not Path(source).suffix
