"""An adapter's configuration: the few settings that predictions need, read from a stranger's JSON.

peft's own reader imports modules that the file names, matches its strings as regular expressions, and ignores unknown
keys. Here a key is read, or its value means nothing, or the file is refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard

MAX_RANK = 1024
"""Larger than any adapter in use. The rank is also compared with the weights, before it costs memory."""

_MAX_ALPHA = 1_000_000.0
_MAX_MODULES = 4096  # a list of whole paths has one for each layer: 882 for the largest Llama
_MAX_NAME = 256
_MODULE_NAME = re.compile(r"[A-Za-z0-9_.]+")

# Values that change nothing, besides null, false, and an empty string, list or object.
_HARMLESS: dict[str, object] = {
    "bias": "none",
    "megatron_core": "megatron.core",  # which module to import if megatron_config were there
    "qalora_group_size": 16,  # is used only with use_qalora
}


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The settings of a LoRA adapter that its predictions depend on.

    The update of a layer is scaled by `alpha / r`, or `alpha / sqrt(r)` with `use_rslora`. `target_modules` are module
    names, or their last parts, or `all-linear`: every linear layer but the output layer. `base` and `base_revision` are
    as in the file: None, or possibly a path on another machine.
    """

    base: str | None
    base_revision: str | None
    r: int
    alpha: float
    target_modules: tuple[str, ...] | Literal["all-linear"]
    use_rslora: bool
    fan_in_fan_out: bool


def read_adapter_settings(record: object) -> AdapterSettings:
    """Read the content of an adapter_config.json. Anything but plain LoRA is a ValueError of one sentence."""
    if not isinstance(record, Mapping):
        raise ValueError(f"it holds {_shown(record)}, not an object")
    for key in ("peft_type", "r", "lora_alpha", "target_modules"):
        if key not in record:
            raise ValueError(f"{key} is missing")
    if record["peft_type"] != "LORA":
        raise ValueError(f"peft_type is {_shown(record['peft_type'])}, only LORA is read")
    if record.get("task_type") not in (None, "CAUSAL_LM"):
        raise ValueError(f"task_type is {_shown(record['task_type'])}, only CAUSAL_LM is read")
    settings = AdapterSettings(
        base=_text(record, "base_model_name_or_path"),
        base_revision=_text(record, "revision"),
        r=_rank(record["r"]),
        alpha=_alpha(record["lora_alpha"]),
        target_modules=_modules(record["target_modules"]),
        use_rslora=_switch(record, "use_rslora"),
        fan_in_fan_out=_switch(record, "fan_in_fan_out"),
    )
    _check_unused_keys(record)
    for key, value in record.items():
        if key not in _READ and not _is_nothing(value) and not _is_same(value, _HARMLESS.get(key)):
            raise ValueError(f"{_key(key)} is {_shown(value)}, which is not supported")
    return settings


# The last one says how to load the base where there is no task_type. It is not used here.
_READ = {
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "target_modules"),
    *("use_rslora", "fan_in_fan_out", "init_lora_weights", "lora_dropout", "inference_mode", "peft_version"),
    "auto_mapping",
}


def _check_unused_keys(record: Mapping[str, object]) -> None:
    """Check the keys that matter only in training, or say what wrote the file."""
    start = record.get("init_lora_weights", True)
    # PiSSA, OLoRA, LoftQ and others change the base's weights, too: such an adapter is wrong on the original base.
    if not isinstance(start, bool) and start != "gaussian":
        raise ValueError(f"init_lora_weights is {_shown(start)}, only true, false and gaussian leave the base as it is")
    dropout = record.get("lora_dropout", 0.0)
    if not _is_number(dropout) or not 0 <= dropout <= 1:
        raise ValueError(f"lora_dropout is {_shown(dropout)}, it must be from 0 to 1")
    _switch(record, "inference_mode")
    _text(record, "peft_version")


def _rank(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        raise ValueError(f"r is {_shown(value)}, it must be a whole number from 1 to {MAX_RANK}")
    return value


def _alpha(value: object) -> float:
    # NaN and infinity fail the comparison, and an integer of a thousand digits is compared without becoming a float.
    if not _is_number(value) or not 0 < value <= _MAX_ALPHA:
        raise ValueError(f"lora_alpha is {_shown(value)}, it must be above 0 and at most {_MAX_ALPHA:,.0f}")
    return float(value)


def _modules(value: object) -> tuple[str, ...] | Literal["all-linear"]:
    if value == "all-linear":
        return "all-linear"
    if isinstance(value, str):
        # peft takes it for a regular expression. One like (a+)+$ takes forever on some names.
        raise ValueError(f"target_modules is the pattern {_shown(value)}, only all-linear or a list of names is read")
    if not isinstance(value, list) or not value:
        raise ValueError(f"target_modules is {_shown(value)}, only all-linear or a list of names is read")
    if len(value) > _MAX_MODULES:
        raise ValueError(f"target_modules has {len(value):,} names, at most {_MAX_MODULES:,} are read")
    for name in value:
        if not isinstance(name, str) or len(name) > _MAX_NAME or not _MODULE_NAME.fullmatch(name):
            raise ValueError(f"target_modules has {_shown(name)}, which is not the name of a module")
    return tuple(value)


def _text(record: Mapping[str, object], key: str) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 1024 or not value.isprintable():
        raise ValueError(f"{key} is {_shown(value)}, it must be one line of text")
    return value


def _switch(record: Mapping[str, object], key: str) -> bool:
    value = record.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {_shown(value)}, it must be true or false")
    return bool(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nothing(value: object) -> bool:
    # 0 does not count: in layers_to_transform it means the first layer.
    return value is None or value is False or (isinstance(value, str | list | dict | tuple | set) and not value)


def _is_same(value: object, harmless: object) -> bool:
    return harmless is not None and type(value) is type(harmless) and value == harmless


def _key(key: str) -> str:
    return key if len(key) <= 60 and _MODULE_NAME.fullmatch(key) else _shown(key)


def _shown(value: object) -> str:
    """A value for a message: short, and without control characters for a terminal."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple | set):
        return "a list" if value else "an empty list"
    text = json.dumps(value, default=repr)  # all but ASCII is escaped
    return text if len(text) <= 60 else f"{text[:60]}…"
