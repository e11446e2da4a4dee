"""Logits in float32, where they are scored and nowhere else."""

from typing import Any

import pytest
import torch

from pricer.commands.parts.setup import Setup
from pricer.ml.base import load_base
from pricer.ml.batches import right_padded
from pricer.ml.devices import Precision
from pricer.ml.loss import completion_loss, is_slow_without_mask, logits_only_at, score_in_float32


class Bare(torch.nn.Module):
    """An output layer by itself, in bfloat16 or float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.head = torch.nn.Linear(8, 5, bias=False, dtype=dtype)
        score_in_float32(self)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, hidden: torch.Tensor) -> Any:
        return self.head(hidden)


def test_weights_in_16_bits_give_logits_that_are_not_rounded_to_16_bits() -> None:
    model = Bare(torch.bfloat16)
    hidden = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(hidden)

    assert logits.dtype == torch.float32
    assert torch.equal(logits, hidden.float() @ model.head.weight.float().t())
    assert not torch.equal(logits, logits.bfloat16().float())


def test_their_gradient_is_that_of_the_product() -> None:
    model = Bare(torch.bfloat16)
    hidden = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()

    torch.autograd.backward(model(hidden).sum())

    assert hidden.grad is not None
    # d(sum)/dx is the sum of the weight's rows, for every row of x.
    expected = model.head.weight.float().sum(dim=0).expand(4, -1)
    assert torch.allclose(hidden.grad.float(), expected, rtol=2**-7)


def test_logits_are_computed_at_the_positions_asked_for_alone() -> None:
    model = Bare(torch.float32)
    hidden = torch.arange(48.0).view(2, 3, 8)
    whole = model(hidden)

    with logits_only_at(model, torch.tensor([4, 1])):
        some = model(hidden)

    # Of two rows of three, 4 is the second of the second row, 1 the second of the first.
    assert torch.allclose(some, torch.stack([whole[1, 1], whole[0, 1]])[None])
    assert model(hidden).shape == (2, 3, 5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_padding_behind_a_row_changes_no_loss_and_no_gradient(setup: Setup, dtype: str) -> None:
    model = load_base(setup.base.folder, Precision("cpu", "none", dtype))
    examples = setup.encoder.examples([setup.template.example(item) for item in setup.items.train[:6]])
    assert len({len(example.ids) for example in examples}) > 1
    norm = model.model.norm.weight

    def loss_and_gradient(batches: list[Any]) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        total = 0.0
        for batch in batches:
            ids, spans = right_padded(batch, pad=0)
            loss = completion_loss(model, torch.from_numpy(ids), spans)
            torch.autograd.backward(loss)
            total += loss.item()
        return total, norm.grad.float().clone()

    together, gradient = loss_and_gradient([examples])
    alone, gradient_alone = loss_and_gradient([[example] for example in examples])

    tolerance = 1e-5 if dtype == "float32" else 3e-2  # eight bits
    assert together == pytest.approx(alone, rel=tolerance)
    assert float((gradient - gradient_alone).norm() / gradient_alone.norm()) < tolerance


def test_a_mask_where_attention_needs_one_changes_no_loss(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_base(setup.base.folder, Precision("cpu", "none", "float32"))
    examples = setup.encoder.examples([setup.template.example(item) for item in setup.items.train[:6]])
    ids, spans = right_padded(examples, pad=0)
    with torch.inference_mode():
        without = completion_loss(model, torch.from_numpy(ids), spans)
        monkeypatch.setattr("pricer.ml.loss.is_slow_without_mask", lambda *_: True)
        masked = completion_loss(model, torch.from_numpy(ids), spans)

    assert float(masked) == pytest.approx(float(without), rel=1e-5)


@pytest.mark.parametrize(
    ("capability", "dtype", "needed"),
    [
        ((7, 5), torch.float16, True),  # a T4
        ((8, 0), torch.bfloat16, False),
        ((9, 0), torch.float32, True),
    ],
)
def test_attention_needs_a_mask_where_there_is_no_kernel_for_fewer_keys_than_queries(
    capability: tuple[int, int], dtype: torch.dtype, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)

    assert is_slow_without_mask(torch.device("cuda"), dtype) == needed
    assert not is_slow_without_mask(torch.device("cpu"), dtype)
