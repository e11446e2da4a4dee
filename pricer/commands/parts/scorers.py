"""What a scorer is made from, so that a worker on another machine makes the same one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pricer.commands.parts.setup import Setup
from pricer.config import ModelConfig
from pricer.core.prices import PriceFormat
from pricer.ml.devices import Precision
from pricer.ml.predict import CheckpointPredictor, TreeDecoder
from pricer.ml.tokens import PriceTokens, TokenizedPrompt
from pricer.ml.tree_attention import common_prefix
from pricer.stores.bases import names_a_folder


@dataclass(frozen=True, slots=True)
class ScorerParts:
    """Everything that answers depend on besides the adapter and the prompts, in values that can be sent. `model` names
    the base at its revision. The other fields are those of a TreeDecoder.
    """

    model: ModelConfig
    precision: Precision
    price_format: PriceFormat
    answer_tokens: int
    price_tokens: PriceTokens | None
    residual_mass: float
    shared_prefix: np.ndarray | None

    def build(self, base: Any, tokenizer: Any) -> CheckpointPredictor:
        """The scorer on a base in memory."""
        decoder = TreeDecoder(
            base,
            tokenizer,
            self.price_format,
            self.answer_tokens,
            self.price_tokens,
            self.residual_mass,
            self.shared_prefix,
        )
        return CheckpointPredictor(base, decoder)


def choose_parts(setup: Setup, prompts: Sequence[TokenizedPrompt]) -> ScorerParts:
    """The parts of the scorer of a setup. With all `prompts` that it will be asked, the answers to a batch do not
    depend on the batches before.
    """
    settings, model = setup.config.eval, setup.config.model
    if names_a_folder(model.base) and not model.base.startswith("builtin:"):
        # A worker has another working folder, or is on another machine with the same disk.
        model = model.model_copy(update={"base": str(setup.base.folder.absolute())})
    return ScorerParts(
        model,
        setup.precision,
        setup.template.price_format,
        setup.encoder.answer_tokens,
        # The greedy answer alone needs no distribution, which would take more computation.
        None if settings.estimator == "greedy" else setup.price_tokens,
        settings.residual_mass,
        common_prefix([prompt.ids for prompt in prompts]) if prompts else None,
    )
