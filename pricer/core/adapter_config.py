"""An adapter's configuration: the few settings that predictions need, read from untrusted JSON.

peft's own reader imports modules that the file names, matches its strings as regular expressions, and ignores unknown
keys. This reader refuses a file with an unknown key, unless the key's value has no effect.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAX_RANK = 1024
"""Maximum rank. Adapters in use have lower ranks. The rank is also compared with the shapes of the weights,
before they are read.
"""

_MAX_ALPHA = 1_000_000.0
_MAX_MODULES = 4096  # a list of full paths has one entry per layer: 882 for the largest Llama
_MAX_NAME = 256
_MODULE_NAME = re.compile(r"[A-Za-z0-9_.]+")

# Values without an effect. null, false, and an empty string, list or object have no effect either.
_HARMLESS: dict[str, object] = {
    "bias": "none",
    "megatron_core": "megatron.core",  # the module to import if there is a megatron_config
    "qalora_group_size": 16,  # used only with use_qalora
}


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The settings of a LoRA adapter that its predictions depend on.

    The update of a layer is scaled by `alpha / r`, or by `alpha / sqrt(r)` with `use_rslora`. `target_modules` are the
    names of modules or the last parts of these names; `all-linear` means every linear layer except the output layer.
    `base` may be a path on another machine.
    """

    base: str | None
    base_revision: str | None
    r: int
    alpha: float
    target_modules: tuple[str, ...] | Literal["all-linear"]
    use_rslora: bool
    fan_in_fan_out: bool


def read_adapter_settings(record: object) -> AdapterSettings:
    """Read the parsed content of an adapter_config.json. Raises a ValueError for anything but plain LoRA."""
    if not isinstance(record, Mapping):
        raise ValueError(f"it holds {_describe(record)}, not an object")
    for key in ("peft_type", "r", "lora_alpha", "target_modules"):
        if key not in record:
            raise ValueError(f"{key} is missing")
    for key, (is_right, requirement) in _KEYS.items():
        if key in record and not is_right(record[key]):
            raise ValueError(f"{key} is {_describe(record[key])}, {requirement}")
    modules = _modules(record["target_modules"])
    for key, value in record.items():
        is_read = key in _KEYS or key in ("target_modules", "auto_mapping")
        if not is_read and not _is_empty(value) and not _is_same(value, _HARMLESS.get(key)):
            raise ValueError(f"{_describe_key(key)} is {_describe(value)}, which is not supported")
    return AdapterSettings(
        base=record.get("base_model_name_or_path"),
        base_revision=record.get("revision"),
        r=record["r"],
        alpha=float(record["lora_alpha"]),
        target_modules=modules,
        use_rslora=bool(record.get("use_rslora")),
        fan_in_fan_out=bool(record.get("fan_in_fan_out")),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_line(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 1024 and value.isprintable())


_LINE = (_is_line, "it must be one line of text")
_SWITCH = (lambda value: value is None or isinstance(value, bool), "it must be true or false")

# For each known key: a check of its value, and the requirement in words.
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", "only LORA is read"),
    "task_type": (lambda value: value in (None, "CAUSAL_LM"), "only CAUSAL_LM is read"),
    "base_model_name_or_path": _LINE,
    "revision": _LINE,
    "r": (
        lambda value: _is_number(value) and isinstance(value, int) and 1 <= value <= MAX_RANK,
        f"it must be a whole number from 1 to {MAX_RANK}",
    ),
    # NaN and infinity fail this comparison. An integer of a thousand digits is not converted to a float.
    "lora_alpha": (
        lambda value: _is_number(value) and 0 < value <= _MAX_ALPHA,
        f"it must be above 0 and at most {_MAX_ALPHA:,.0f}",
    ),
    "use_rslora": _SWITCH,
    "fan_in_fan_out": _SWITCH,
    # PiSSA, OLoRA, LoftQ and others also change the base's weights. Their adapters are wrong on the original base.
    "init_lora_weights": (
        lambda value: isinstance(value, bool) or value == "gaussian",
        "only true, false and gaussian leave the base as it is",
    ),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value <= 1, "it must be from 0 to 1"),
    "inference_mode": _SWITCH,
    "peft_version": _LINE,
}


def _modules(value: object) -> tuple[str, ...] | Literal["all-linear"]:
    if value == "all-linear":
        return "all-linear"
    if isinstance(value, str):
        # peft uses a string as a regular expression. A pattern such as (a+)+$ never ends on some names.
        raise ValueError(
            f"target_modules is the pattern {_describe(value)}, only all-linear or a list of names is read"
        )
    if not isinstance(value, list) or not value:
        raise ValueError(f"target_modules is {_describe(value)}, only all-linear or a list of names is read")
    if len(value) > _MAX_MODULES:
        raise ValueError(f"target_modules has {len(value):,} names, at most {_MAX_MODULES:,} are read")
    for name in value:
        if not isinstance(name, str) or len(name) > _MAX_NAME or not _MODULE_NAME.fullmatch(name):
            raise ValueError(f"target_modules has {_describe(name)}, which is not the name of a module")
    return tuple(value)


def _is_empty(value: object) -> bool:
    # 0 is not empty: in layers_to_transform it means the first layer.
    return value is None or value is False or (isinstance(value, str | list | dict | tuple | set) and not value)


def _is_same(value: object, harmless: object) -> bool:
    return harmless is not None and type(value) is type(harmless) and value == harmless


def _describe_key(key: str) -> str:
    return key if len(key) <= 60 and _MODULE_NAME.fullmatch(key) else _describe(key)


def _describe(value: object) -> str:
    """A value for a message: short, and without control characters for a terminal."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple | set):
        return "a list" if value else "an empty list"
    text = json.dumps(value, default=repr)  # escapes everything but ASCII
    return text if len(text) <= 60 else f"{text[:60]}…"
