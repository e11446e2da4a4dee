"""Model cards as the Hub reads them: metadata in YAML above the Markdown, both written by the Hub's own library."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pricer.views.model_card import Card


def render(card: "Card") -> str:
    """The text of README.md. Read back it holds the same results; nothing is sent anywhere."""
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
