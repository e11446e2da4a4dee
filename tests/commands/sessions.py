"""Evaluation sessions without a model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pricer.commands.parts.session import EvaluationSession, Scorer
from pricer.commands.parts.watcher import Watcher
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.errors import CheckpointError
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.checkpoints import ADAPTER
from pricer.stores.runs import Run

SPEC = EvalSpec("data", Split.VAL, None, "prompt", "base", "1" * 40, "nf4/float32", "greedy", 30.0, "$", 0, 40.0, 0.2)


class FakeScorer:
    """Predicts the price in dollars that `price` has for an adapter (its folder's name) and an item; None: no price.
    Fails at the batch it is told to, and cannot use the `bad` adapters.
    """

    def __init__(self, price: Callable[[str, str], float | None], fail_at: int | None = None) -> None:
        self.adapters: list[str] = []
        self.bad: set[str] = set()
        self.weights = b""
        self.asked: list[tuple[str, list[str]]] = []
        self._price = price
        self.fail_at = fail_at

    def use(self, adapter: Path) -> None:
        if adapter.name in self.bad:
            raise CheckpointError(f"the adapter in {adapter.name} has weights that are not numbers")
        self.adapters.append(adapter.name)
        self.weights = (adapter / ADAPTER).read_bytes()

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        if len(self.asked) == self.fail_at:
            raise SystemError("killed")
        adapter = self.adapters[-1] if self.adapters else ""
        self.asked.append((adapter, [prompt.item_id for prompt in prompts]))
        return [Prediction(prompt.item_id, "", self._price(adapter, prompt.item_id)) for prompt in prompts]

    def embed(
        self, prompts: Sequence[TokenizedPrompt], batch_tokens: int, reach: Callable[[int], object] | None = None
    ) -> np.ndarray:
        return np.array([[float(len(prompt.ids))] for prompt in prompts], dtype=np.float32)

    @property
    def predicted(self) -> list[tuple[str, str]]:
        """Every prediction, as adapter and item."""
        return [(adapter, item) for adapter, ids in self.asked for item in ids]


def a_session(
    run: Run,
    items: Sequence[Item],
    prompts: Sequence[TokenizedPrompt],
    batch_tokens: int,
    scorer: Scorer | None,
    watcher: Watcher,
) -> EvaluationSession:
    """A session under SPEC, as one that has begun with these batches. Without a scorer, all predictions must be
    saved.
    """

    def load() -> Scorer:
        assert scorer is not None, "every prediction is saved"
        return scorer

    return EvaluationSession(run, SPEC, items, prompts, batch_tokens, load, run.store.fetch, watcher)
