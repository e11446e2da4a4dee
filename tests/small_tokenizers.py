"""Tokenizers of a few hundred tokens, with the normalizers and pre-tokenizers of the families that people fine-tune.

What matters is how a family cuts texts, not what it knows: blanks in front of a text, and digits alone or in groups.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

_CORPUS = ["What does this cost to the nearest dollar?\n\nA lamp of brass for a desk.\n\nPrice is $"] * 3
_SPECIAL = ["<unk>", "<s>", "</s>"]
_BLANK = "▁"

# As in the tokenizer.json of Llama 3 and of Qwen: they differ in the digits alone.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _sentencepiece() -> Tokenizer:
    """A BPE over characters with ▁ for blanks. No digit is ever merged, as in Llama 2, Mistral and Gemma."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_BLANK, prepend_scheme="always")
    trainer = BpeTrainer(
        vocab_size=200, special_tokens=_SPECIAL, initial_alphabet=list("0123456789.\n"), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def _bytes(digits: str, *more: str) -> Tokenizer:
    """A byte-level BPE whose pre-tokenizer cuts digits by a regular expression, and knows `more` numbers as tokens."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS.replace("DIGITS", digits)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if more:
        tokenizer.model = _with_tokens(tokenizer, more)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _with_tokens(tokenizer: Tokenizer, more: tuple[str, ...]) -> BPE:
    """The model with more tokens, each merged from the one without its last character."""
    vocabulary = tokenizer.get_vocab()
    merges = _merges(tokenizer)
    for token in more:
        if token not in vocabulary:
            vocabulary[token] = len(vocabulary)
            merges.append((token[:-1], token[-1]))
    # As Llama 3 says it: what is a token as a whole is that token, whatever merges lead to.
    return BPE(vocabulary, merges, ignore_merges=True)


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [(first, second) for first, second in json.loads(tokenizer.to_str())["model"]["merges"]]


def _wrapped(tokenizer: Tokenizer) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def _llama(*, legacy: bool) -> Any:
    """As transformers builds the tokenizer of Llama 2 and Mistral itself, whatever their tokenizer.json says."""
    tokenizer = _sentencepiece()
    merges = _merges(tokenizer)
    return LlamaTokenizer(vocab=tokenizer.get_vocab(), merges=merges, legacy=legacy, add_bos_token=True)


def _prepending() -> Any:
    """As the tokenizer.json of Llama 2 and Phi-3 says it: the blank is put in front while normalizing."""
    tokenizer = _sentencepiece()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_BLANK), normalizers.Replace(" ", _BLANK)])
    return _wrapped(tokenizer)


def _metaspace(scheme: str, *, split: bool) -> Any:
    tokenizer = _sentencepiece()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_BLANK, prepend_scheme=scheme, split=split)
    return _wrapped(tokenizer)


def _gemma() -> Any:
    """SentencePiece without a blank in front."""
    tokenizer = _sentencepiece()
    tokenizer.normalizer = normalizers.Replace(" ", _BLANK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()])
    return _wrapped(tokenizer)


_NUMBERS = tuple(f"{number:0{size}}" for size in (2, 3) for number in range(10**size))

# Those that put a blank in front of a text by itself.
WITH_BLANK: dict[str, Callable[[], Any]] = {
    "Llama 2, legacy": lambda: _llama(legacy=True),
    "Llama 2, not legacy": lambda: _llama(legacy=False),
    "Llama 2's tokenizer.json": _prepending,
    "Metaspace, always": lambda: _metaspace("always", split=False),
    "Metaspace, first": lambda: _metaspace("first", split=False),
    "Metaspace by words": lambda: _metaspace("always", split=True),
}
WITHOUT_BLANK: dict[str, Callable[[], Any]] = {
    "Gemma": _gemma,
    "Llama 3": lambda: _wrapped(_bytes(r"\p{N}{1,3}", *_NUMBERS)),
    "Qwen": lambda: _wrapped(_bytes(r"\p{N}")),
    # Numbers with the blank before them, in tokens of any length: nothing is regular.
    "GPT-2": lambda: _wrapped(_bytes(r" ?\p{N}+", "Ġ2", "Ġ22", "Ġ227", *_NUMBERS[:100], "200", "2000")),
}


def saved(tokenizer: Any, folder: Path) -> Path:
    """The folder, with the tokenizer in it as a base has it."""
    tokenizer.save_pretrained(folder)
    return folder
