"""Groups of texts that are nearly the same, by MinHash signatures of their five-word sequences.

The Jaccard similarity of two sets is estimated by the share of equal values in two signatures (Broder, 1997). Pairs to
compare come from bands of signatures that are equal (locality-sensitive hashing). 800,000 texts are compared in numpy
arrays, without a Python object for each.
"""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from html import unescape

import numpy as np

VALUES = 128
"""Values in a signature. The standard deviation of a similarity of 0.8 is √(0.8 × 0.2 / 128) = 0.035."""
_SEED = 42
_WORDS_IN_SEQUENCE = 5
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
# Chinese and Japanese are written without spaces: each character is a word.
_NO_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_WORD = re.compile(r"[^\W_]+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
# Words whose hashes are kept. Texts with more different words are rare, and memory is not.
_MAX_CACHED = 500_000
_PAIRS_AT_ONCE = 20_000
# Maximum number of texts of one bucket that all others are compared with. Only texts of one template exceed it.
_MAX_LEADERS = 64


class _WordHashes(dict[str, int]):
    """The 64-bit hashes of words, each computed once."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        found = self[word] = int.from_bytes(digest, "little")
        return found


class Signer:
    """Computes signatures. It remembers the hashes of words."""

    def __init__(self) -> None:
        self._hashes = _WordHashes()

    def sign(self, texts: Sequence[str]) -> np.ndarray:
        """The signatures of texts, uint32 (texts, VALUES). Texts that differ only in case, punctuation, markup,
        invisible characters and space have the same signature.
        """
        from rensa import RMinHash

        if len(self._hashes) > _MAX_CACHED:
            self._hashes.clear()
        words = [split_words(text) for text in texts]
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        hashes = map(self._hashes.__getitem__, itertools.chain.from_iterable(words))
        flat = np.fromiter(hashes, np.uint64, int(lengths.sum()))
        sequences, starts = _hash_sequences(flat, lengths)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(sequences, starts, VALUES, _SEED)
        # rensa has no other way to numpy.
        return np.array(matrix.to_rows(), np.uint32).reshape(len(words), VALUES)


def split_words(text: str) -> list[str]:
    """The words of a text without case, punctuation, markup and invisible characters. A text without words is one."""
    clean = text
    if "&" in clean:
        clean = unescape(clean)
    if "<" in clean:
        clean = _TAG.sub(" ", clean)
    if not clean.isascii():
        # NFKC: é is one character or two, and letters and digits have wide forms.
        clean = unicodedata.normalize("NFKC", _INVISIBLE.sub("", clean))
        clean = _NO_SPACES.sub(lambda found: f" {found[0]} ", clean)
    return _WORD.findall(clean.casefold()) or [text.strip()]


def _hash_sequences(words: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all sequences of five words within a text, and where each text's begin. A shorter text is one
    sequence.
    """
    hashes = np.zeros(len(words), np.uint64)
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    ends = np.repeat(np.cumsum(lengths), lengths)
    places = np.arange(len(words))
    for offset in range(_WORDS_IN_SEQUENCE):
        follows = places + offset < ends
        following = np.where(follows, words[np.minimum(places + offset, len(words) - 1)], np.uint64(0))
        hashes = _mix(hashes * multiplier + following)
    per_text = np.maximum(1, lengths - _WORDS_IN_SEQUENCE + 1)
    is_start = (places + _WORDS_IN_SEQUENCE <= ends) | (places == ends - np.repeat(lengths, lengths))
    return hashes[is_start], np.concatenate([[0], np.cumsum(per_text)]).astype(np.uint64)


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Spread every bit over the whole number (the finalizer of SplitMix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))  # type: ignore[no-any-return]


def find_groups(signatures: np.ndarray, texts: np.ndarray, similarity: float) -> np.ndarray:
    """The number of each text's group, (texts,). `texts` are rows of `signatures`. Texts are in one group if a chain of
    pairs connects them whose estimated similarity is at least `similarity`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(texts)
    if not n:
        return np.zeros(0, np.int32)
    # Equal signatures first: a text that stands there a thousand times is compared once.
    keys = _key(signatures, range(VALUES), texts)
    _, first, original = np.unique(keys, return_index=True, return_inverse=True)
    pairs = [np.zeros((2, 0), np.int64), *_similar_pairs(signatures, texts, first, similarity)]
    left, right = np.concatenate(pairs, axis=1)
    edges = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(n, n))
    return connected_components(edges, directed=False)[1][first][original]  # type: ignore[no-any-return]


def _similar_pairs(
    signatures: np.ndarray, texts: np.ndarray, chosen: np.ndarray, similarity: float
) -> Iterator[np.ndarray]:
    """Yield pairs of similar texts among the chosen ones, (2, pairs), band by band."""
    rows = rows_per_band(similarity)
    for start in range(0, VALUES - rows + 1, rows):
        keys = _key(signatures, range(start, start + rows), texts[chosen])
        order = np.argsort(keys, kind="stable")
        bucket = np.cumsum(np.diff(keys[order], prepend=keys[order[:1]]) != 0)
        yield from _compare_buckets(signatures, texts, chosen[order], bucket, similarity)


def _compare_buckets(
    signatures: np.ndarray, texts: np.ndarray, chosen: np.ndarray, bucket: np.ndarray, similarity: float
) -> Iterator[np.ndarray]:
    """Yield the similar pairs within buckets. The first text of a bucket is compared with the others. Those that are
    not like it are left for the next round, with the next first text.
    """
    for _ in range(_MAX_LEADERS):
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        leader = np.repeat(starts, np.diff(starts, append=len(bucket)))
        others = np.flatnonzero(leader != np.arange(len(bucket)))
        if not len(others):
            return
        left, right = chosen[leader[others]], chosen[others]
        is_similar = np.empty(len(others), np.bool_)
        for at in range(0, len(others), _PAIRS_AT_ONCE):
            part = slice(at, at + _PAIRS_AT_ONCE)
            is_similar[part] = (signatures[texts[left[part]]] == signatures[texts[right[part]]]).mean(
                axis=1
            ) >= similarity
        yield np.stack([left[is_similar], right[is_similar]])
        chosen, bucket = right[~is_similar], bucket[others][~is_similar]


def rows_per_band(similarity: float) -> int:
    """The number of signature values in a band: as many as still find 95 % of the pairs of exactly this similarity."""
    fitting = [r for r in range(1, 17) if (1 - similarity**r) ** (VALUES // r) <= 0.05]
    return max(fitting, default=1)


def _key(signatures: np.ndarray, columns: range, texts: np.ndarray) -> np.ndarray:
    """A hash of some columns of the signatures of some texts, uint64."""
    hashes = np.zeros(len(texts), np.uint64)
    # A part of the rows at a time: a column of all rows would read the whole file for each column.
    for at in range(0, len(texts), _PAIRS_AT_ONCE):
        block = signatures[texts[at : at + _PAIRS_AT_ONCE], columns.start : columns.stop]
        part = hashes[at : at + _PAIRS_AT_ONCE]
        for column in range(block.shape[1]):
            part[:] = _mix(part * np.uint64(0x9E3779B97F4A7C15) + block[:, column])
    return hashes
