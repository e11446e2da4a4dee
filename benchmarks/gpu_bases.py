"""Bases of well-known shapes with random weights, made in place, and items of made-up tokens for them."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import DEVICE, IS_GPU
from safetensors.torch import save_file
from transformers import LlamaConfig

from pricer.ml.base import load_tokenizer
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt
from pricer.stores.bases import ASSETS

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "3b": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
}
"""Llama 3.1 8B and Llama 3.2 3B."""
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 4096,
}
# As in Llama 3, 0 to 999 are a token each, and every completion ends in the same three.
PRICES, REST = 1000, [2000, 2001, 1]


class Words:
    """As much of a tokenizer as the decoder asks for."""

    eos_token_id = pad_token_id = 1

    def batch_decode(self, ids: np.ndarray, **_: Any) -> list[str]:
        """A price for each."""
        return ["227.00"] * len(ids)


def real_tokenizer() -> Any:
    """The trainer wants a real one, though the ids are made up."""
    return load_tokenizer(ASSETS / "base")


def make_base(name: str) -> Path:
    """A folder with a base of that shape, in shards as a real one, in memory where there is room; a tiny one without a
    GPU.
    """
    sizes = SHAPES[name] | ({} if IS_GPU else TINY)
    shared = Path("/dev/shm")  # a disk would be measured otherwise
    root = shared if IS_GPU and shutil.disk_usage(shared).free > 30e9 else Path(tempfile.mkdtemp())
    folder = root / f"pricer-{name}"
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    shards = [_ends(sizes)]
    for first in range(0, sizes["num_hidden_layers"], 8):
        shards.append({})
        for layer in range(first, min(first + 8, sizes["num_hidden_layers"])):
            shards[-1] |= _layer(layer, sizes)
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    weight_map = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(weight_map, encoding="utf-8")
    config = LlamaConfig(
        **sizes, rms_norm_eps=1e-5, max_position_embeddings=8192, bos_token_id=0, eos_token_id=1, dtype="bfloat16"
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    return folder


def _random(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) * 0.02).cpu()


def _ends(sizes: dict[str, Any]) -> dict[str, torch.Tensor]:
    hidden, vocabulary = sizes["hidden_size"], sizes["vocab_size"]
    ends = {"model.embed_tokens.weight": _random(vocabulary, hidden)}
    ends["model.norm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    if not sizes["tie_word_embeddings"]:
        ends["lm_head.weight"] = _random(vocabulary, hidden)
    return ends


def _layer(layer: int, sizes: dict[str, Any]) -> dict[str, torch.Tensor]:
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    query = sizes["num_attention_heads"] * sizes["head_dim"]
    keys = sizes["num_key_value_heads"] * sizes["head_dim"]
    matrices = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    weights = {f"model.layers.{layer}.{name}.weight": _random(*shape) for name, shape in matrices.items()}
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights[f"model.layers.{layer}.{name}.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    return weights


def made_up(count: int, longest: int, spread: int) -> list[TokenizedExample]:
    """Items of random tokens, at most `longest` long with their completion, and shorter by about `spread`."""
    random = np.random.default_rng(0)
    items = []
    for number in range(count):
        size = int(np.clip(random.normal(longest - spread, spread), 16, longest))
        ids = random.integers(3, 900, size).astype(np.int32)
        ids[:8] = 5  # the question
        ids[-4:] = [PRICES + int(random.integers(0, 1000)), *REST]
        items.append(TokenizedExample(TokenizedPrompt(str(number), ids[:-4], cut=False), ids, start=size - 4))
    return items
