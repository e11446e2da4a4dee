"""The base model's tokenizer: byte-level BPE with one token per digit and whole phrases as tokens.

Digits stand alone, so that a number is read and written place by place. Between digits and punctuation merges
may cross spaces: " MB hard disk" can be one token, which makes short prompts and so fast training.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
PIECES = (
    r"\d"
    r"|[,.;:]+ (?=\d)"  # punctuation with the space before a number
    r"| (?:and|with)(?= )(?: (?=\d))?"
    r"|,?(?:(?! (?:and|with) )[^\d\n,.;:?!$])+"  # a run of words up to the next of these
    r"|\n+"
    r"|[,.;:?!$]+"
)
"""What merges stay within."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer that adds no special tokens of its own: prompts begin with their first word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
