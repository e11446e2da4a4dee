"""The CPU's faster layers: the same losses and gradients as peft's."""

from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM

from pricer.config import AdapterConfig
from pricer.ml.adapters import add_adapter
from pricer.ml.base import mixed_precision
from pricer.ml.block_attention import attention_in_float32
from pricer.ml.cpu_layers import SharedDropout, _LoraProduct, draw_mask, speed_up
from pricer.ml.loss import completion_loss, score_in_float32
from pricer.ml.micro_batch import set_checkpointing

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
FAMILIES = {
    "Llama": (transformers.LlamaConfig, SIZES),
    "Qwen2, with biases": (transformers.Qwen2Config, SIZES),
    "Qwen3, with norms of queries": (transformers.Qwen3Config, SIZES),
    "Gemma2, with norms after the layers": (transformers.Gemma2Config, SIZES | {"sliding_window": 4}),
    "Phi3, with one layer for queries, keys and values": (transformers.Phi3Config, SIZES),
    "Qwen3-MoE": (
        transformers.Qwen3MoeConfig,
        SIZES | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "GPT-2, which is not built like Llama": (
        transformers.GPT2Config,
        {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "pad_token_id": 0},
    ),
}
IDS = torch.randint(1, 64, (3, 9), generator=torch.Generator().manual_seed(0))
# The rows have 9, 7 and 8 tokens.
SPANS = [(6, 9), (4, 7), (6, 8)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def a_model(family: str, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> Any:
    """A small model with an adapter whose B is not zero, which would hide the gradient of A."""
    kind, sizes = FAMILIES[family]
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_config(kind(**sizes)).to(dtype)
    score_in_float32(base)
    targets: Any = ["q_proj", "v_proj", "o_proj"] if "MoE" in family else "all-linear"
    model = add_adapter(base, AdapterConfig(r=4, alpha=8, dropout=dropout, target_modules=targets), seed=0).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def loss_and_gradients(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the completions in IDS."""
    with mixed_precision(model):
        loss = completion_loss(model, IDS, SPANS)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_the_same_as_before(family: str) -> None:
    expected_loss, expected = loss_and_gradients(a_model(family))
    model = a_model(family)
    speed_up(model)

    loss, gradients = loss_and_gradients(model)

    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() >= expected.keys()
    for name, gradient in gradients.items():
        # What no loss depends on has no gradient, or one of zeros.
        wanted = expected.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5 * max(1.0, wanted.abs().max().item()))


@pytest.mark.parametrize("family", ["Llama", "Gemma2, with norms after the layers", "Qwen3-MoE"])
def test_in_bfloat16_the_gradients_are_as_near_to_those_in_float32_as_before(family: str) -> None:
    _, exact = loss_and_gradients(a_model(family))
    _, before = loss_and_gradients(a_model(family, dtype=torch.bfloat16))
    model = a_model(family, dtype=torch.bfloat16)
    speed_up(model)

    with attention_in_float32(model):
        _, gradients = loss_and_gradients(model)

    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    errors = [
        torch.cat([(found[name] - wanted).flatten() for name, wanted in exact.items()]).norm()
        / torch.cat([wanted.flatten() for wanted in exact.values()]).norm()
        for found in (gradients, before)
    ]
    # bfloat16 has 8 bits: both have errors of some percent, of which neither is the smaller one.
    assert errors[0] < 0.1
    assert errors[0] < 1.5 * errors[1]


def test_training_in_bfloat16_computes_attention_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        seen.append(query.dtype)
        assert not torch.is_autocast_enabled("cpu")
        return attend(query, *others, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    model = a_model("Llama", dtype=torch.bfloat16)

    with attention_in_float32(model):
        loss_and_gradients(model)

    assert seen == [torch.float32] * 3
    assert model.config._attn_implementation == "sdpa"


def test_a_sliding_window_is_kept_with_attention_in_float32() -> None:
    # A window of 4 tokens; the rows have 9.
    model = a_model("Gemma2, with norms after the layers", dtype=torch.bfloat16)
    expected, _ = loss_and_gradients(model)

    with attention_in_float32(model):
        loss, _ = loss_and_gradients(model)

    assert loss == pytest.approx(expected, rel=0.01)


def test_logits_at_all_positions_are_the_same_as_before() -> None:
    before = a_model("Llama").eval()
    after = a_model("Llama").eval()
    speed_up(after)

    with torch.no_grad():
        torch.testing.assert_close(after(input_ids=IDS).logits, before(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)


def test_the_last_layer_computes_the_scored_positions_alone() -> None:
    model = a_model("Llama")
    speed_up(model)
    widths = []
    first, last = (model.get_decoder().layers[index].mlp.down_proj for index in (0, -1))
    for layer in (first, last):
        layer.register_forward_hook(lambda _module, inputs, _output: widths.append(inputs[0].shape[:-1].numel()))

    completion_loss(model, IDS, SPANS)

    # 3 rows of 9 tokens; and 3 + 3 + 2 tokens of completions.
    assert widths == [27, 8]


def test_the_product_is_that_of_its_formula() -> None:
    x, weight, a, b = torch.randn(2, 5, 6), torch.randn(7, 6), torch.randn(3, 6), torch.randn(7, 3)
    bias, mask = torch.randn(7), draw_mask(torch.Size((2, 5, 6)), 0.5)
    x.requires_grad_()
    a.requires_grad_()
    b.requires_grad_()
    d = x * mask

    def run(product: Any) -> list[torch.Tensor]:
        y = product()
        return [y, *torch.autograd.grad(y.square().sum(), (x, a, b))]

    found = run(lambda: _LoraProduct.apply(x, d, weight, bias, a, b, 4.0))  # type: ignore[no-untyped-call]
    expected = run(lambda: linear(x, weight, bias) + 4.0 * ((x * mask @ a.t()) @ b.t()))

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


class TestDropout:
    def test_a_mask_is_0_for_its_share_of_the_numbers(self) -> None:
        mask = draw_mask(torch.Size((1000, 1003)), 0.1)

        # The standard deviation of the mean of a million draws is sqrt(0.1 · 0.9 / 1e6) = 0.0003.
        assert mask.shape == (1000, 1003)
        assert mask.double().mean().item() == pytest.approx(0.9, abs=0.0015)

    def test_what_is_left_makes_up_for_what_is_dropped(self) -> None:
        x = torch.ones(1000, 1000)

        dropped, factor = SharedDropout()(x, 0.25)

        assert set(dropped.flatten().tolist()) == {0.0, 1.0}
        assert factor == 1 / 0.75
        assert dropped.mean().item() * factor == pytest.approx(1.0, abs=0.003)

    def test_layers_with_the_same_input_share_a_mask(self) -> None:
        dropout, x, other = SharedDropout(), torch.ones(64, 64), torch.ones(64, 64)

        first, again, another = (dropout(given, 0.5)[0] for given in (x, x, other))

        assert first is again
        assert not torch.equal(first, another)

    def test_masks_follow_the_seed_of_torch(self) -> None:
        masks = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            masks.append(draw_mask(torch.Size((64, 64)), 0.5))

        assert torch.equal(masks[0], masks[1])
        assert not torch.equal(masks[0], masks[2])

    def test_no_dropout_outside_of_training(self) -> None:
        model = a_model("Llama", dropout=0.5)
        speed_up(model)
        training, scoring = list[float](), list[float]()
        for losses, mode in ((training, True), (scoring, False)):
            model.train(mode)
            losses += [completion_loss(model, IDS, SPANS).item() for _ in range(2)]

        assert training[0] != training[1]
        assert scoring[0] == scoring[1] == pytest.approx(completion_loss(a_model("Llama"), IDS, SPANS).item(), rel=1e-5)

    def test_recomputed_activations_have_the_masks_of_the_forward_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Otherwise only the step that keeps its activations would compute the last layer at few positions.
        monkeypatch.setattr("pricer.ml.last_layer._modules_after_keys_and_values", lambda _model: [])
        found = []
        for recomputed in (False, True):
            model = a_model("Llama", dropout=0.5)
            speed_up(model)
            set_checkpointing(model, recomputed)
            torch.manual_seed(3)
            found.append(loss_and_gradients(model))

        assert found[0][0] == found[1][0]
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-5, atol=1e-6)
