"""Fine-tuning: the order of items, and runs that must come out the same."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaMLP

from pricer.commands.parts.setup import Setup, prepare
from pricer.config import AdapterConfig, DataConfig, RunConfig, TrainConfig
from pricer.core.ranks import Ranks
from pricer.core.training import Progress
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base
from pricer.ml.batches import EpochOrder, OutOfMemoryError
from pricer.ml.cpu_layers import _LoraProduct
from pricer.ml.devices import Precision
from pricer.ml.loss import Span, completion_loss
from pricer.ml.micro_batch import StepSettings, requested_settings
from pricer.ml.processes import Processes
from pricer.ml.sft import build_dataset, collate, fine_tune, trainer_arguments
from pricer.ml.token_table import TokenTable


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare(RunConfig(data=DataConfig(train_limit=48), adapter=AdapterConfig(r=4, dropout=0.1)))


def train(
    setup: Setup,
    folder: Path,
    config: TrainConfig,
    *,
    dropout: float = 0.1,
    resume_from: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = print,
    settings: StepSettings | None = None,
    processes: Processes | None = None,
) -> tuple[dict[int, Path], list[Progress], bool]:
    """Train on 48 items; the folders by step, the logged progress, and whether it came to the end."""
    folders: dict[int, Path] = {}
    logged: list[Progress] = []
    examples = setup.encoder.examples([setup.template.example(item) for item in setup.items.train])
    adapter = setup.config.adapter.model_copy(update={"dropout": dropout})
    finished = fine_tune(
        add_adapter(load_base(setup.base.folder, setup.precision), adapter, config.seed),
        setup.tokenizer,
        examples,
        config,
        setup.precision,
        state_folder=folder,
        resume_from=resume_from,
        on_checkpoint=lambda path, step, hurries: folders.update({step: path}),
        on_progress=lambda progress: logged.append(progress) if progress.loss is not None else None,
        should_stop=should_stop,
        note=note,
        settings=settings or requested_settings(config),
        processes=processes,
    )
    return folders, logged, finished


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


CONFIG = TrainConfig(epochs=3, batch_size=16, learning_rate=3e-3, checkpoint_every=2, log_every=1)


SHORT = CONFIG.model_copy(update={"epochs": 1})


@pytest.fixture(scope="module")
def whole(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, Path], list[Progress], bool]:
    """A training of three epochs that nothing interrupts."""
    return train(setup, tmp_path_factory.mktemp("whole"), CONFIG)


@pytest.fixture(scope="module")
def short(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a training of one epoch, without dropout."""
    return train(setup, tmp_path_factory.mktemp("short"), SHORT, dropout=0.0)[0][3]


def largest_difference(one: Path, two: Path) -> float:
    """Between the weights of two adapters."""
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, two))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_training_lowers_the_loss_and_keeps_a_checkpoint_every_two_steps_and_at_the_end(
    whole: tuple[dict[int, Path], list[Progress], bool],
) -> None:
    folders, logged, finished = whole

    # 48 items in batches of 16 are 3 steps an epoch, 9 in all: checkpoints at 2, 4, 6 and 8, and the last.
    assert sorted(folders) == [2, 4, 6, 8, 9]
    assert [progress.step for progress in logged] == list(range(1, 10))
    assert logged[-1].loss is not None
    assert logged[0].loss is not None
    assert logged[-1].loss < logged[0].loss
    assert finished


def test_a_resumed_run_ends_with_the_same_adapter_bit_for_bit(
    setup: Setup, whole: tuple[dict[int, Path], list[Progress], bool], tmp_path: Path
) -> None:
    # Asked at the end of each step: stopped in the middle of the second epoch, after step 4 of 9.
    answers = iter([False, False, False, True])
    stopped, _, finished = train(setup, tmp_path, CONFIG, should_stop=lambda: next(answers))
    assert sorted(stopped) == [2, 4]
    assert not finished

    resumed, *_ = train(setup, tmp_path, CONFIG, resume_from=stopped[4])

    assert sorted(resumed) == [6, 8, 9]
    assert weights(resumed[9]) == weights(whole[0][9])


def test_a_batch_of_16_trains_like_two_parts_of_8(setup: Setup, short: Path, tmp_path: Path) -> None:
    twice, *_ = train(setup, tmp_path, SHORT.model_copy(update={"micro_batch": 8}), dropout=0.0)

    assert largest_difference(twice[3], short) < 1e-3


def test_recomputed_activations_train_the_same_adapter(
    setup: Setup, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recomputed = SHORT.model_copy(update={"activation_checkpointing": True})
    computed: list[int] = []
    forward = LlamaMLP.forward

    def counted(layer: Any, x: torch.Tensor) -> torch.Tensor:
        computed.append(layer.training)
        hidden: torch.Tensor = forward(layer, x)  # type: ignore[no-untyped-call]
        return hidden

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    again, *_ = train(setup, tmp_path, recomputed, dropout=0.0)

    # 3 steps of 5 layers, forward and once more.
    assert len(computed) == 3 * 5 * 2
    # Without recomputation, the last layer computes the completions alone, which is rounded differently.
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (short, again[3]))
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-3, atol=1e-5)


def test_in_bfloat16_the_adapter_computes_in_bfloat16_and_is_kept_in_float32(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = replace(setup, precision=Precision("cpu", "nf4", "bfloat16"))
    seen: set[torch.dtype] = set()

    class Watched:
        @staticmethod
        def apply(*inputs: Any) -> torch.Tensor:
            seen.update(given.dtype for given in inputs if isinstance(given, torch.Tensor))
            output: torch.Tensor = _LoraProduct.apply(*inputs)  # type: ignore[no-untyped-call]
            return output

    monkeypatch.setattr("pricer.ml.cpu_layers._LoraProduct", Watched)

    folders, *_ = train(half, tmp_path, SHORT)

    assert seen == {torch.bfloat16}
    kept = load_file(folders[3] / "adapter_model.safetensors")
    assert {weight.dtype for weight in kept.values()} == {torch.float32}


def test_a_run_in_bfloat16_is_resumed_bit_for_bit_too(setup: Setup, tmp_path: Path) -> None:
    half = replace(setup, precision=Precision("cpu", "nf4", "bfloat16"))
    whole, *_ = train(half, tmp_path / "whole", SHORT)

    resumed, *_ = train(half, tmp_path / "resumed", SHORT, resume_from=whole[2])

    assert weights(resumed[3]) == weights(whole[3])


def test_dropout_is_on_from_the_first_step(setup: Setup, tmp_path: Path) -> None:
    losses = []
    for dropout in (0.0, 0.5):
        _, logged, _ = train(setup, tmp_path / str(dropout), SHORT, dropout=dropout)
        losses.append([progress.loss for progress in logged])

    # B begins as zeros, and the first step of the warm-up changes nothing. The second step's gradient depends on what
    # is dropped, and so does the third step's loss.
    assert losses[0][:2] == losses[1][:2]
    assert losses[0][2] != losses[1][2]


class Second(Processes):
    """The second of two processes, without the first."""

    def largest(self, number: int) -> int:
        return number

    def gather(self, value: Any) -> list[Any]:
        return [value, value]

    def receive(self, value: Any) -> Any:
        return value

    def add_up(self, parameters: Sequence[Any], loss: torch.Tensor) -> torch.Tensor:
        return loss


def test_a_process_without_a_share_of_a_batch_computes_a_pass_that_changes_nothing(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, sums = list[int](), list[float]()

    def counted(model: Any, ids: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        computed.append(len(spans))
        return completion_loss(model, ids, spans)

    def add_up(_: Any, parameters: Sequence[Any], loss: torch.Tensor) -> torch.Tensor:
        sums.append(sum(float(parameter.grad.abs().sum()) for parameter in parameters))
        return loss

    monkeypatch.setattr("pricer.ml.sft.completion_loss", counted)
    monkeypatch.setattr(Second, "add_up", add_up)
    config = SHORT.model_copy(update={"batch_size": 47})

    train(setup, tmp_path, config, processes=Second(Ranks(1, 2)))

    # 48 items: a batch of 47, whose second share is 23, and a batch of 1. Without a pass, the float16 gradient scaler
    # of a resumed training would have no scale.
    assert computed == [23, 1]
    assert sums[0] > 0
    assert sums[1] == 0


def test_nothing_pickled_is_kept_beside_the_training_state(short: Path) -> None:
    names = {file.name for file in short.iterdir()}

    assert "training_args.bin" not in names
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= names


def test_the_loss_is_on_the_completion_alone(setup: Setup) -> None:
    examples = setup.encoder.examples([setup.template.example(setup.items.train[0])])

    (row,) = build_dataset(TokenTable.of(examples))

    start = examples[0].start
    assert row["input_ids"] == examples[0].ids.tolist()
    assert collate([row], pad=0)["spans"] == [(start, start + 4 + 1)]  # four digits and the end of text


@pytest.mark.parametrize(
    ("precision", "optimizer", "bf16", "fp16"),
    [
        (Precision("cpu", "nf4", "float32"), "adamw_torch_fused", False, False),
        (Precision("cuda", "nf4", "bfloat16"), "adamw_torch_fused", True, False),
        # A T4: float16 with a gradient scaler, and nothing in bfloat16 for it to trip over.
        (Precision("cuda", "nf4", "float16"), "adamw_torch_fused", False, True),
    ],
)
def test_the_recipe_reaches_the_trainer(precision: Precision, optimizer: str, bf16: bool, fp16: bool) -> None:
    config = TrainConfig(
        epochs=1,
        batch_size=8,
        checkpoint_every=1,
        learning_rate=1e-4,
        warmup=0.03,
        weight_decay=0.001,
        max_grad_norm=0.3,
    )

    arguments = trainer_arguments(config, precision, Path("state"))

    assert (arguments["learning_rate"], arguments["lr_scheduler_type"], arguments["warmup_steps"]) == (
        1e-4,
        "cosine",
        0.03,
    )
    assert (arguments["weight_decay"], arguments["max_grad_norm"]) == (0.001, 0.3)
    assert (arguments["optim"], arguments["bf16"], arguments["fp16"]) == (optimizer, bf16, fp16)


def test_every_epoch_has_every_item_once_in_an_order_of_its_own() -> None:
    order = EpochOrder(lengths=[n % 7 for n in range(103)], batch_size=8, seed=1)

    first = list(order)
    order.set_epoch(1)
    second = list(order)
    order.set_epoch(0)

    assert sorted(first) == sorted(second) == list(range(103))
    assert first != second
    assert list(order) == first  # an epoch is a function of its number


def test_batches_hold_items_of_similar_length() -> None:
    lengths = [n % 50 for n in range(400)]
    order = list(EpochOrder(lengths, batch_size=8, seed=0))

    spans = []
    for start in range(0, 400, 8):
        own = [lengths[index] for index in order[start : start + 8]]
        spans.append(max(own) - min(own))
    # 8 items of each length: sorted, a batch is one length, and 400 items are one pool.
    assert max(spans) == 0


def test_the_incomplete_batch_is_the_last_one() -> None:
    order = EpochOrder(lengths=list(range(20)), batch_size=8, seed=0)

    # Sorted longest first, the four shortest are left over.
    assert sorted(list(order)[16:]) == [0, 1, 2, 3]


class Cramped:
    """The loss on a machine that has room for so many items at once, and without their activations for one more."""

    def __init__(self, room: int, *, recomputed: int | None = None) -> None:
        self.sizes: list[int] = []
        self._room = room
        self._recomputed = room if recomputed is None else recomputed

    def __call__(self, model: Any, ids: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        self.sizes.append(len(spans))
        is_recomputing = model.get_base_model().is_activation_checkpointing
        if len(spans) > (self._recomputed if is_recomputing else self._room):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return completion_loss(model, ids, spans)


class TestMemoryThatRunsOutInMidRun:
    def test_the_step_is_taken_once_more_in_smaller_parts(
        self, setup: Setup, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cramped, notes = Cramped(4), list[str]()
        monkeypatch.setattr("pricer.ml.sft.completion_loss", cramped)

        halved, *_ = train(setup, tmp_path, SHORT, dropout=0.0, note=notes.append)

        # 16 and 8 do not fit, 4 do: four parts a step, of three steps.
        assert cramped.sizes == [16, 8, *[4] * 12]
        assert notes == [
            "memory ran out at step 1, which is repeated: parts of 8 from now on (train.micro_batch)",
            "memory ran out at step 1, which is repeated: parts of 4 from now on (train.micro_batch)",
        ]
        assert largest_difference(halved[3], short) < 1e-3

    def test_activations_are_computed_again_where_one_item_does_not_fit(
        self, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes = list[str]()
        monkeypatch.setattr("pricer.ml.sft.completion_loss", Cramped(0, recomputed=1))

        _, _, finished = train(setup, tmp_path, SHORT, note=notes.append)

        assert finished
        assert notes[-1] == (
            "memory ran out at step 1, which is repeated: activations are recomputed from now on "
            "(train.activation_checkpointing)"
        )

    def test_compiled_layers_that_fail_in_mid_run_are_left(
        self, setup: Setup, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes, tried = list[str](), list[int]()

        def failing(model: Any, ids: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
            tried.append(len(spans))
            if len(tried) == 2:
                raise AssertionError("Failed to find C compiler")
            return completion_loss(model, ids, spans)

        monkeypatch.setattr("pricer.ml.sft.completion_loss", failing)
        monkeypatch.setattr("pricer.ml.sft.compile_layers", lambda _model: None)
        settings = StepSettings(16, compiled=True)

        left, *_ = train(setup, tmp_path, SHORT, dropout=0.0, note=notes.append, settings=settings)

        assert notes == ["step 2 is repeated without compiled layers: Failed to find C compiler"]
        assert weights(left[3]) == weights(short)

    def test_a_single_item_too_many_ends_in_one_line(
        self, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.ml.sft.completion_loss", Cramped(0))

        with pytest.raises(OutOfMemoryError, match=r"^there is no memory left for a single item at step 1$"):
            train(setup, tmp_path, SHORT)
