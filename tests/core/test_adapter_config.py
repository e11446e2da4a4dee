"""The settings that are read from an adapter_config.json, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.adapter_config import AdapterSettings, read_adapter_settings

PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "meta-llama/Llama-3.2-3B",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "v_proj"],
}

# As other versions of peft write it: keys that are gone, keys that are to come, empty one way or the other.
OLDER: dict[str, Any] = {
    "auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers"},
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_dropout": 0.1,
    "merge_weights": False,
    "modules_to_save": None,
    "revision": None,
}
NEWER: dict[str, Any] = {
    "alpha_pattern": {},
    "corda_config": None,
    "ensure_weight_tying": False,
    "exclude_modules": None,
    "init_lora_weights": "gaussian",
    "loftq_config": {},
    "lora_bias": False,
    "megatron_core": "megatron.core",
    "peft_version": "0.99.0",
    "qalora_group_size": 16,
    "rank_pattern": {},
    "something_of_tomorrow": [],
    "target_parameters": None,
    "use_bdlora": None,
    "use_dora": False,
}


def test_a_plain_adapter_is_read() -> None:
    assert read_adapter_settings({**PLAIN, "revision": "abc123"}) == AdapterSettings(
        base="meta-llama/Llama-3.2-3B",
        base_revision="abc123",
        r=8,
        alpha=16.0,
        target_modules=("q_proj", "v_proj"),
        use_rslora=False,
        fan_in_fan_out=False,
    )


@pytest.mark.parametrize("extra", [OLDER, NEWER])
def test_keys_that_say_nothing_are_passed_over(extra: dict[str, Any]) -> None:
    assert read_adapter_settings({**PLAIN, **extra}) == read_adapter_settings(PLAIN)


def test_a_base_may_be_unnamed_and_a_task_left_out() -> None:
    settings = read_adapter_settings({**PLAIN, "base_model_name_or_path": None, "task_type": None})

    assert settings.base is None


def test_scaling_and_all_linear_are_read() -> None:
    settings = read_adapter_settings(
        {**PLAIN, "use_rslora": True, "lora_alpha": 0.5, "target_modules": "all-linear", "fan_in_fan_out": True}
    )

    assert (settings.use_rslora, settings.alpha) == (True, 0.5)
    assert (settings.target_modules, settings.fan_in_fan_out) == ("all-linear", True)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_what_peft_writes_is_read(targets: str | list[str], tmp_path: Path) -> None:
    from peft import LoraConfig

    LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path="builtin:base",
    ).save_pretrained(tmp_path)

    settings = read_adapter_settings(json.loads((tmp_path / "adapter_config.json").read_text()))

    assert (settings.base, settings.r, settings.alpha) == ("builtin:base", 16, 32.0)
    assert set(settings.target_modules) == set(targets)


BASE_ONLY = "only true, false and gaussian leave the base as it is"
NAMES = "only all-linear or a list of names is read"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"peft_type": "IA3"}, 'peft_type is "IA3", only LORA is read'),
        ({"peft_type": ["LORA"]}, "peft_type is a list, only LORA is read"),
        ({"task_type": "SEQ_CLS"}, 'task_type is "SEQ_CLS", only CAUSAL_LM is read'),
        ({"r": 0}, "r is 0, it must be a whole number from 1 to 1024"),
        ({"r": 10**9}, "r is 1000000000, it must be a whole number from 1 to 1024"),
        ({"r": 8.0}, "r is 8.0, it must be a whole number from 1 to 1024"),
        ({"r": True}, "r is true, it must be a whole number from 1 to 1024"),
        ({"lora_alpha": 0}, "lora_alpha is 0, it must be above 0 and at most 1,000,000"),
        ({"lora_alpha": float("nan")}, "lora_alpha is NaN, it must be above 0 and at most 1,000,000"),
        ({"lora_alpha": 10**300}, f"lora_alpha is 1{'0' * 59}…, it must be above 0 and at most 1,000,000"),
        ({"lora_alpha": "16"}, 'lora_alpha is "16", it must be above 0 and at most 1,000,000'),
        ({"lora_dropout": -1}, "lora_dropout is -1, it must be from 0 to 1"),
        ({"target_modules": "(a+)+$"}, f'target_modules is the pattern "(a+)+$", {NAMES}'),
        ({"target_modules": None}, f"target_modules is null, {NAMES}"),
        ({"target_modules": []}, f"target_modules is an empty list, {NAMES}"),
        ({"target_modules": ["q_proj", ".*"]}, 'target_modules has ".*", which is not the name of a module'),
        ({"target_modules": ["q_proj\n"]}, 'target_modules has "q_proj\\n", which is not the name of a module'),
        ({"target_modules": [["q_proj"]]}, "target_modules has a list, which is not the name of a module"),
        ({"target_modules": ["x" * 257]}, f'target_modules has "{"x" * 59}…, which is not the name of a module'),
        ({"target_modules": ["x"] * 5000}, "target_modules has 5,000 names, at most 4,096 are read"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path is 3, it must be one line of text"),
        (
            {"base_model_name_or_path": "a\x1b[2J"},
            r'base_model_name_or_path is "a\u001b[2J", it must be one line of text',
        ),
        ({"revision": "a\nb"}, r'revision is "a\nb", it must be one line of text'),
        ({"use_rslora": "yes"}, 'use_rslora is "yes", it must be true or false'),
        ({"init_lora_weights": "pissa"}, f'init_lora_weights is "pissa", {BASE_ONLY}'),
        ({"init_lora_weights": "loftq"}, f'init_lora_weights is "loftq", {BASE_ONLY}'),
        ({"bias": "all"}, 'bias is "all", which is not supported'),
        ({"use_dora": True}, "use_dora is true, which is not supported"),
        ({"lora_bias": True}, "lora_bias is true, which is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is a list, which is not supported"),
        ({"layers_to_transform": 0}, "layers_to_transform is 0, which is not supported"),
        ({"layer_replication": [[0, 4]]}, "layer_replication is a list, which is not supported"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is an object, which is not supported"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern is an object, which is not supported"),
        ({"exclude_modules": "(a+)+$"}, 'exclude_modules is "(a+)+$", which is not supported'),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is a list, which is not supported"),
        ({"target_parameters": ["w"]}, "target_parameters is a list, which is not supported"),
        ({"megatron_config": {"a": 1}}, "megatron_config is an object, which is not supported"),
        ({"megatron_core": "os"}, 'megatron_core is "os", which is not supported'),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config is an object, which is not supported"),
        ({"eva_config": {"rho": 2.0}}, "eva_config is an object, which is not supported"),
        ({"corda_config": {"verbose": True}}, "corda_config is an object, which is not supported"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map is an object, which is not supported"),
        ({"tomorrow": 1}, "tomorrow is 1, which is not supported"),
        ({"a\x1b[2J": 1}, r'"a\u001b[2J" is 1, which is not supported'),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_adapter_settings({**PLAIN, **change})


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_a_setting_that_predictions_need_is_not_guessed(key: str) -> None:
    record = {name: value for name, value in PLAIN.items() if name != key}

    with pytest.raises(ValueError, match=f"^{key} is missing$"):
        read_adapter_settings(record)


@pytest.mark.parametrize(
    ("record", "what"), [([1], "a list"), (None, "null"), ("LORA", '"LORA"'), (float("inf"), "Infinity")]
)
def test_what_is_not_an_object_is_refused(record: object, what: str) -> None:
    with pytest.raises(ValueError, match=f"^it holds {what}, not an object$"):
        read_adapter_settings(record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*PLAIN, *OLDER, *NEWER, "auto_map"]), JSON, max_size=3))
def test_any_value_anywhere_is_read_or_refused_in_one_line(change: dict[str, Any]) -> None:
    message = ""
    try:
        read_adapter_settings({**PLAIN, **change})
    except ValueError as error:
        message = str(error)

    assert message.isprintable()
    assert len(message) < 250
