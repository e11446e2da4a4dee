"""How a step is computed: what fits, and of that the fastest."""

from typing import Any

import numpy as np
import pytest
import torch

from pricer.commands.parts.setup import Setup
from pricer.config import AdapterConfig, TrainConfig
from pricer.errors import ModelError
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base
from pricer.ml.batches import OutOfMemoryError, right_padded
from pricer.ml.loss import completion_loss
from pricer.ml.micro_batch import StepSettings, Timing, choose_step_settings, compile_layers, find_fastest, use_compiled
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt

KEPT, AGAIN = False, True


class Card:
    """A GPU with room for so many items, fewer with their activations kept, that takes so many seconds for each.
    `tight`: so many more fit, with no room to spare.
    """

    def __init__(self, kept: int, again: int, seconds: dict[bool, float], tight: int = 0) -> None:
        self._tight = tight
        self._room = {KEPT: kept, AGAIN: again}
        self._seconds = seconds
        self.tried: list[tuple[int, bool]] = []

    def measure(self, settings: StepSettings) -> Timing:
        way = settings.activation_checkpointing
        self.tried.append((settings.micro_batch, way))
        if settings.micro_batch > self._room[way] + self._tight:
            return None
        return self._seconds[way], settings.micro_batch <= self._room[way]


def test_a_batch_that_fits_is_computed_at_once_and_nothing_else_is_tried() -> None:
    card = Card(16, 64, {KEPT: 1.0, AGAIN: 1.3})

    assert find_fastest(TrainConfig(batch_size=16), card.measure) == (StepSettings(16), 1.0)
    assert card.tried == [(16, KEPT)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({KEPT: 1.0, AGAIN: 1.3}, StepSettings(8)),
        # Small parts can be slow, where each costs more to start than to compute.
        ({KEPT: 3.0, AGAIN: 1.3}, StepSettings(32, activation_checkpointing=True)),
    ],
)
def test_of_smaller_parts_and_recomputed_activations_the_faster_is_taken(
    seconds: dict[bool, float], expected: StepSettings
) -> None:
    card = Card(8, 32, seconds)

    assert find_fastest(TrainConfig(batch_size=32), card.measure) == (
        expected,
        seconds[expected.activation_checkpointing],
    )
    assert card.tried == [(32, KEPT), (16, KEPT), (8, KEPT), (32, AGAIN)]


def test_what_fits_with_no_room_to_spare_is_taken_where_nothing_else_does() -> None:
    seconds = {KEPT: 1.0, AGAIN: 1.3}

    assert find_fastest(TrainConfig(batch_size=4), Card(0, 0, seconds, tight=2).measure) == (
        StepSettings(1, AGAIN),
        1.3,
    )
    as_said = TrainConfig(batch_size=16, micro_batch=16, activation_checkpointing=False)
    assert find_fastest(as_said, Card(15, 15, seconds, tight=1).measure) == (StepSettings(16), 1.0)


def test_a_base_that_cannot_recompute_is_not_asked_to() -> None:
    card = Card(4, 0, {KEPT: 1.0})

    assert find_fastest(TrainConfig(batch_size=16), card.measure, can_recompute=False) == (StepSettings(4), 1.0)
    assert card.tried == [(16, KEPT), (8, KEPT), (4, KEPT)]


def test_what_the_config_says_is_not_looked_for() -> None:
    card = Card(4, 64, {KEPT: 1.0, AGAIN: 1.3})

    config = TrainConfig(batch_size=32, micro_batch=8, activation_checkpointing=True)
    assert find_fastest(config, card.measure) == (StepSettings(8, activation_checkpointing=True), 1.3)
    assert card.tried == [(8, AGAIN)]


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (
            TrainConfig(batch_size=32, micro_batch=8, activation_checkpointing=False),
            "a step of 8 items does not fit into this GPU's memory",
            "train.micro_batch: auto and train.activation_checkpointing: auto",
        ),
        (
            TrainConfig(batch_size=6),
            "a step of 1 items does not fit into this GPU's memory",
            "a smaller prompt.max_length or adapter.r, or a GPU with more memory",
        ),
    ],
)
def test_a_step_that_cannot_fit_is_said_before_a_run_is_made(config: TrainConfig, message: str, hint: str) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        find_fastest(config, Card(0, 0, {}).measure)

    assert (caught.value.message, caught.value.hint) == (message, hint)


class OnGpu:
    """As much of a model on a GPU as is asked for where no step is really computed."""

    device = torch.device("cuda")


class TestCompiling:
    """After the trial of settings, whether layers are compiled: 64 items in batches of 16, for so many epochs."""

    EXAMPLES = tuple(
        TokenizedExample(TokenizedPrompt(str(n), np.arange(9), cut=False), np.arange(12), start=9) for n in range(64)
    )

    @pytest.fixture
    def tried(self, monkeypatch: pytest.MonkeyPatch) -> list[StepSettings]:
        tried: list[StepSettings] = []

        def try_it(_model: Any, _batch: Any, _pad: int, settings: StepSettings) -> Timing:
            tried.append(settings)
            return (0.7 if settings.compiled else 1.0), True

        monkeypatch.setattr("pricer.ml.micro_batch._measure_step", try_it)
        monkeypatch.setattr("pricer.ml.micro_batch.can_recompute", lambda _model: True)
        monkeypatch.setattr("pricer.ml.micro_batch.compile_layers", lambda _model: None)
        return tried

    def chosen(self, epochs: int, wanted: Any = "auto", said: list[str] | None = None) -> StepSettings:
        config = TrainConfig(batch_size=16, epochs=epochs, compile=wanted)
        lines: list[str] = [] if said is None else said
        return choose_step_settings(OnGpu(), self.EXAMPLES, config, 0, lines.append)

    def test_a_long_training_is(self, tried: list[StepSettings]) -> None:
        # 30 epochs of 64 items at a second each are 32 minutes.
        assert self.chosen(30) == StepSettings(16, compiled=True)
        assert tried == [StepSettings(16), StepSettings(16, compiled=True)]

    def test_a_short_one_is_not_unless_it_is_asked_for(self, tried: list[StepSettings]) -> None:
        assert self.chosen(10) == StepSettings(16)
        assert tried == [StepSettings(16)]
        assert self.chosen(10, wanted=True) == StepSettings(16, compiled=True)
        assert self.chosen(30, wanted=False) == StepSettings(16)

    def test_on_a_cpu_a_pass_has_at_most_4096_tokens(self, model: Any) -> None:
        longest = max(len(example.ids) for example in self.EXAMPLES)
        batch = 3 * (4096 // longest)  # three passes hold it, two do not

        def choose(**settings: Any) -> StepSettings:
            return choose_step_settings(model, self.EXAMPLES, TrainConfig(**settings), 0, lambda _: None)

        assert choose(batch_size=batch) == StepSettings(batch // 3)
        assert choose(batch_size=batch + 4) == StepSettings(-(-(batch + 4) // 4))
        assert choose(batch_size=batch, micro_batch=batch) == StepSettings(batch)

    def test_on_a_cpu_nothing_is_compiled_and_who_asked_for_it_is_told(self, model: Any) -> None:
        config, said = TrainConfig(batch_size=16, compile=True), list[str]()

        assert choose_step_settings(model, self.EXAMPLES, config, 0, said.append) == StepSettings(16)
        assert said == ["train.compile is for GPUs: the model's layers are not compiled"]

    @pytest.mark.parametrize(
        ("error", "why"),
        [
            (RuntimeError("Failed to find C compiler.\nPlease specify via CC"), "Failed to find C compiler."),
            (AssertionError(), "AssertionError"),
        ],
    )
    def test_a_compiler_that_fails_costs_a_line(
        self, error: Exception, why: str, tried: list[StepSettings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_model: Any) -> None:
            raise error

        monkeypatch.setattr("pricer.ml.micro_batch.compile_layers", fail)
        said: list[str] = []

        assert self.chosen(30, said=said) == StepSettings(16)
        assert said[-1] == f"layers are not compiled: {why}"


class TestCompiledLayers:
    @pytest.fixture
    def model(self, setup: Setup) -> Any:
        adapter = AdapterConfig(r=4, dropout=0.0)
        return add_adapter(load_base(setup.base.folder, setup.precision), adapter, seed=0).train()

    @pytest.fixture
    def compiled(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The graphs that were compiled, as their sizes. They are traced as ever, and run as they are."""
        graphs: list[int] = []

        def backend(graph: torch.fx.GraphModule, _inputs: list[Any]) -> Any:
            graphs.append(len(graph.graph.nodes))
            return graph.forward

        plain = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **how: plain(layer, backend=backend, **how))
        torch.compiler.reset()
        compile_layers(model)
        return graphs

    # Said of torch by its own compiler, while it looks into an autograd function.
    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
    def test_all_layers_and_lengths_share_one_graph_and_give_the_same_loss(
        self, setup: Setup, model: Any, compiled: list[int]
    ) -> None:
        examples = setup.encoder.examples([setup.template.example(item) for item in setup.items.train])
        losses: dict[bool, list[float]] = {}
        for wanted in (False, True):
            losses[wanted] = []
            for batch in (examples[:8], examples[8:12], examples[12:20]):
                ids, spans = right_padded(batch, pad=0)
                with use_compiled(wanted):
                    losses[wanted].append(completion_loss(model, torch.from_numpy(ids), spans).item())
            assert len(compiled) == (1 if wanted else 0)

        assert losses[True] == pytest.approx(losses[False], rel=1e-5)

    def test_a_base_that_does_not_name_its_layers_is_not_compiled(self, model: Any) -> None:
        model.get_base_model()._no_split_modules = None

        with pytest.raises(ModelError, match="LlamaForCausalLM does not say which of its layers are alike"):
            compile_layers(model)
