"""Bases and adapters in memory."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from pricer.config import AdapterConfig
from pricer.errors import ModelError
from pricer.ml.adapters import AdapterSwitch, add_adapter
from pricer.ml.base import dense_bytes, dequantize, load_base, load_tokenizer, mixed_precision
from pricer.ml.devices import Precision
from pricer.stores.bases import ASSETS

BASE = ASSETS / "base"
CPU = Precision("cpu", "nf4", "float32")


def save_adapter(folder: Path, seed: int) -> Path:
    """An adapter whose effect depends on the seed: B starts at zero, so it is filled."""
    model = add_adapter(load_base(BASE, CPU), AdapterConfig(r=4, dropout=0.0), seed=seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    return folder


def test_a_base_goes_onto_one_gpu_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def record(folder: Path, **keywords: object) -> None:
        asked.update(keywords)
        raise RuntimeError("nothing was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", record)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)

    with pytest.raises(ModelError):
        load_base(BASE, Precision("cuda", "nf4", "bfloat16"))

    assert asked["device_map"] == {"": 0}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(input_ids=torch.arange(5, 25)[None]).logits
    return result


def test_the_base_is_held_in_4_bits() -> None:
    model = load_base(BASE, CPU, dense=False)

    layer = model.model.layers[0].mlp.down_proj
    assert layer.weight.dtype == torch.uint8
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested  # double quantization
    # Two weights a byte.
    assert layer.weight.numel() * 2 == model.config.hidden_size * model.config.intermediate_size


def test_cudnns_attention_which_plans_anew_for_each_length_is_off() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)

    load_base(BASE, CPU)

    assert not torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]


def test_an_adapter_still_learns_after_an_evaluation() -> None:
    # bitsandbytes repacks 4-bit weights in eval mode on some CPUs, after which no gradient passes through them.
    model = add_adapter(load_base(BASE, CPU), AdapterConfig(r=4, dropout=0.0), seed=0)
    ids = torch.arange(5, 25)[None]

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for n, p in model.named_parameters() if "lora_B" in n and p.grad is not None]

    before = gradients()
    model.eval()
    logits(model)
    after = gradients()

    assert len(before) == len(after) > 0
    assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))


def computed(model: Any) -> torch.Tensor:
    with mixed_precision(model):
        return logits(model)


def test_in_16_bits_a_checkpoint_is_scored_at_the_precision_that_its_training_computed_at(tmp_path: Path) -> None:
    precision = Precision("cpu", "nf4", "bfloat16")
    adapter = save_adapter(tmp_path / "a", 1)
    trained = add_adapter(load_base(BASE, precision), AdapterConfig(r=4, dropout=0.0), seed=1)
    for name, parameter in trained.named_parameters():
        if ".lora_" in name:  # float32, as they are trained
            key = name.replace(".default", "")
            parameter.data = load_file(adapter / "adapter_model.safetensors")[key].clone()
    seen: set[torch.dtype] = set()
    layer = trained.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default")
    layer.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    switch = AdapterSwitch(load_base(BASE, precision))
    switch.use(adapter)

    assert torch.equal(computed(trained.eval()), computed(switch.model))
    assert seen == {torch.bfloat16}
    assert precision.label == "nf4/bfloat16, adapter bfloat16, logits float32"


def test_another_checkpoint_of_a_run_is_copied_into_the_adapter_that_is_there(tmp_path: Path) -> None:
    one, two = (save_adapter(tmp_path / str(seed), seed) for seed in (1, 2))
    switch = AdapterSwitch(load_base(BASE, CPU), merge=False)
    alone = AdapterSwitch(load_base(BASE, CPU), merge=False)
    alone.use(two)
    switch.use(one)
    before = {name: parameter.data_ptr() for name, parameter in switch.model.named_parameters()}

    switch.use(two)

    assert torch.equal(logits(switch.model), logits(alone.model))
    assert {name: parameter.data_ptr() for name, parameter in switch.model.named_parameters()} == before


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_an_adapter_merged_into_the_layers_gives_what_it_gives_beside_them(tmp_path: Path, quantization: str) -> None:
    adapters = [save_adapter(tmp_path / str(seed), seed) for seed in (1, 2)]
    precision = Precision("cpu", quantization, "float32")
    merged, beside = (AdapterSwitch(load_base(BASE, precision), merge=merge) for merge in (True, False))
    bare = logits(merged.model)

    for adapter in (*adapters, adapters[0]):
        merged.use(adapter)
        beside.use(adapter)

        assert not any("lora_" in name for name, _ in merged.model.named_parameters())
        torch.testing.assert_close(logits(merged.model), logits(beside.model), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(logits(merged.model), bare, rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # peft sets it, and says so
def test_an_adapter_is_merged_into_layers_that_keep_their_weights_the_other_way_round(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    base = tmp_path / "base"
    transformers.GPT2LMHeadModel(config).save_pretrained(base)
    precision = Precision("cpu", "none", "float32")
    model = add_adapter(load_base(base, precision), AdapterConfig(r=2, target_modules=["c_attn", "c_fc"]), seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    merged, beside = (AdapterSwitch(load_base(base, precision), merge=merge) for merge in (True, False))

    for switch in (merged, beside):
        switch.use(tmp_path / "adapter")

    torch.testing.assert_close(logits(merged.model), logits(beside.model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "room"), [("bfloat16", 10**9), ("float32", 1000)])
def test_an_adapter_is_not_merged_where_it_would_be_rounded_or_take_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, room: int
) -> None:
    monkeypatch.setattr("pricer.ml.merging._MAX_MERGED_BYTES", room)
    switch = AdapterSwitch(load_base(BASE, Precision("cpu", "nf4", dtype)))

    switch.use(save_adapter(tmp_path / "adapter", 1))

    assert any("lora_" in name for name, _ in switch.model.named_parameters())


def test_plain_layers_are_merged_where_they_lie_and_are_as_before_when_no_adapter_is_on_them(tmp_path: Path) -> None:
    plain = Precision("cpu", "none", "float32")
    switch = AdapterSwitch(load_base(BASE, plain))
    own = {name: tensor.clone() for name, tensor in switch.model.state_dict().items()}
    few = add_adapter(load_base(BASE, plain), AdapterConfig(r=2, target_modules=["q_proj"]), seed=0)
    few.save_pretrained(tmp_path / "few")  # B is zero: it changes nothing

    switch.use(save_adapter(tmp_path / "all", 1))
    merged = switch.model.state_dict()
    changed = {name for name in own if not torch.equal(own[name], merged[name])}
    where = {name: tensor.data_ptr() for name, tensor in merged.items()}
    switch.use(tmp_path / "few")
    after = switch.model.state_dict()

    assert {name.split(".")[-2] for name in changed} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert all(torch.equal(own[name], after[name]) for name in own)
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == where


def test_plain_layers_that_are_not_as_in_their_folder_are_merged_beside(tmp_path: Path) -> None:
    plain = Precision("cpu", "none", "float32")
    base = load_base(BASE, plain)
    with torch.no_grad():
        base.model.layers[0].self_attn.q_proj.weight[0, 0] += 1
    own = base.model.layers[0].self_attn.q_proj.weight.clone()
    switch = AdapterSwitch(base)

    switch.use(save_adapter(tmp_path / "adapter", 1))

    assert not torch.equal(switch.model.model.layers[0].self_attn.q_proj.weight, own)
    assert not any("lora_" in name for name, _ in switch.model.named_parameters())


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_an_adapter_on_the_output_layer_changes_no_embedding(tmp_path: Path, quantization: str) -> None:
    precision = Precision("cpu", quantization, "float32")
    peft_model = get_peft_model(load_base(BASE, precision), LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    with warnings.catch_warnings(action="ignore"):  # of tied weights, which nothing here merges
        peft_model.save_pretrained(tmp_path / "output", save_embedding_layers=False)
    switch = AdapterSwitch(load_base(BASE, precision))
    embeddings = switch.model.get_input_embeddings().weight.clone()

    switch.use(save_adapter(tmp_path / "first", 1))
    switch.use(tmp_path / "output")

    torch.testing.assert_close(logits(switch.model), logits(peft_model.eval()), rtol=1e-4, atol=1e-4)
    assert torch.equal(switch.model.get_input_embeddings().weight, embeddings)


def test_the_same_seed_starts_the_same_adapter() -> None:
    weights = [
        torch.cat([p.flatten() for n, p in model.named_parameters() if "lora_A" in n])
        for model in (add_adapter(load_base(BASE, CPU), AdapterConfig(r=4), seed=seed) for seed in (7, 7, 8))
    ]

    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_target_modules_that_the_base_does_not_have_are_refused() -> None:
    with pytest.raises(ModelError, match=r"no adapter fits adapter\.target_modules"):
        add_adapter(load_base(BASE, CPU), AdapterConfig(target_modules=["nothing_proj"]), seed=0)


def test_an_adapter_on_the_output_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="includes the output layer, which cannot be adapted"):
        add_adapter(load_base(BASE, CPU), AdapterConfig(target_modules=["q_proj", "lm_head"]), seed=0)


def test_truncated_weights_are_an_error_of_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(BASE, folder)
    (folder / "model.safetensors").write_bytes((BASE / "model.safetensors").read_bytes()[:1000])

    with pytest.raises(ModelError) as caught:
        load_base(folder, CPU)

    assert "\n" not in caught.value.message


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    with pytest.raises(ModelError, match="has no tokenizer that can be read"):
        load_tokenizer(tmp_path)


def test_weights_dequantized_once_give_what_they_give_dequantized_each_time(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "a", 1)
    for dtype in ("float32", "bfloat16"):
        precision = Precision("cpu", "nf4", dtype)
        each, once = (load_base(BASE, precision) for _ in range(2))
        # 2 bytes, or 4, for each weight of the five layers' seven matrices.
        assert dense_bytes(once) == sum(a * b for a, b in _matrices(once)) * (4 if dtype == "float32" else 2)
        dequantize(once)
        assert dense_bytes(once) == 0
        switches = [AdapterSwitch(base, merge=False) for base in (each, once)]
        for switch in switches:
            switch.use(adapter)

        assert torch.equal(computed(switches[0].model), computed(switches[1].model))


def _matrices(model: Any) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in model.modules() if type(m).__name__ == "Linear4bit"]


def test_over_dequantized_weights_an_adapter_learns_what_it_learns_over_4_bits() -> None:
    gradients = []
    for dense in (False, True):
        precision = Precision("cpu", "nf4", "bfloat16")
        model = add_adapter(load_base(BASE, precision, dense=dense), AdapterConfig(r=4, dropout=0.1), seed=0)
        torch.manual_seed(0)
        with mixed_precision(model):
            loss = model.train()(input_ids=torch.arange(5, 25)[None]).logits.logsumexp(-1).mean()
        torch.autograd.backward(loss)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})

    each, once = gradients
    assert each.keys() == once.keys() != set()
    assert all(torch.equal(each[name], once[name]) for name in each)
