"""Finds in the sentences of a model card which data sets they name, and on which splits the model was trained."""

import re
from collections.abc import Collection, Iterator

from pricer.core.items import Split, name_split

# Words of a sentence that are read. What follows is ignored, so that no text takes long.
_MAX_WORDS = 300
_WORD = re.compile(r"[A-Za-z0-9_./-]+|,")
_SENTENCE_END = re.compile(r"[.;!?](?=\s)")
# Lines that begin a sentence of their own in Markdown: headings, list items, quotes, rows of a table.
_OWN_LINE = ("#", "-", "*", "+", "|", ">", "<")
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)

_PARTS = {"split", "splits", "set", "sets", "subset", "partition", "portion"}
_BETWEEN = {",", "and", "the", "or", "both", "plus", "is", "was", "named", "called"}
# `train`, `training`, `trained`, `fine-tuned` … Before one of _ON (`trained on`), or after `for`, it governs any split.
# In `this fine-tuned model has 12.3 on the test set` it does not.
_TRAINED = re.compile(r"train(ed|ing|s)?|(fine-?)?tun(e|ed|ing)")
_ON = {"on", "with", "using", "over", "data", "dataset", "examples", "rows"}
# What follows one of these words was not trained on.
_NOT_TRAINED = {
    *("evaluated", "evaluation", "evaluate", "eval", "tested", "testing", "validated", "validation", "measured"),
    *("scored", "scores", "score", "reported", "results", "reaches", "achieves", "achieved", "performance", "mae"),
    *("rmse", "rmsle", "mse", "accuracy", "error", "errors", "loss", "metrics", "benchmarked", "held", "held-out"),
    *("unseen", "reserved", "kept", "not", "never", "no", "without", "except", "excluding", "excludes", "excluded"),
    *("while", "whereas", "separate", "disjoint"),
}
_NEGATIONS = {"not", "never", "no", "without"}


def split_sentences(markdown: str) -> Iterator[str]:
    """The sentences of a text. An empty line ends a sentence, and so does the next heading or list item."""
    paragraph: list[str] = []
    for line in [*markdown.splitlines(), ""]:
        text = line.strip()
        if not text or text.startswith(_OWN_LINE):
            yield from _SENTENCE_END.split(" ".join(paragraph))
            paragraph = []
        paragraph.append(text)


def find_data_sets(sentence: str, known: Collection[str]) -> list[str]:
    """The data sets that a sentence names: by a link, or by an id in `known`. Other ids may be those of models."""
    ids = {name.casefold(): name for name in known}
    found = []
    for word in _words(sentence):
        _, is_link, rest = word.rpartition("/datasets/")
        name = "/".join(rest.split("/")[:2])
        if name.casefold() in ids or (is_link and _ID.fullmatch(name)):
            found.append(ids.get(name.casefold(), name))
    return list(dict.fromkeys(found))


def find_trained_splits(sentence: str) -> tuple[Split, ...]:
    """The splits that a sentence says were trained on, such as `trained on the train and validation splits`.

    Each split belongs to the last verb before it in the same clause, otherwise to the next verb, otherwise to the last
    verb of an earlier clause. Without any verb (`Data: user/name (split: train)`), only `train` counts. With another
    split, `train` is always added: `trained on all of it, including the test split` does not name it.
    """
    words = [word.lower() for word in _words(sentence)]
    groups = dict(_find_groups(words))
    used = {at for _, places in groups.values() for at in places}
    verbs = _find_verbs(words, used)
    found: list[Split] = []
    for place, (splits, _) in groups.items():
        clause = max((at for at in range(place) if words[at] == "," and at not in used), default=-1)
        before, after = [at for at in verbs if at < place], [at for at in verbs if at > place]
        own = [at for at in before if at > clause]
        verb = next(iter([*own[-1:], *after[:1], *before[-1:]]), None)
        trained = {Split.TRAIN} if verb is None else verbs[verb]
        found += [split for split in splits if split in trained]
    return tuple(dict.fromkeys([Split.TRAIN, *found])) if found else ()


def _find_verbs(words: list[str], used: Collection[int]) -> dict[int, set[Split]]:
    """The places of the words that say what a split was for, with the splits that they may say were trained on."""
    verbs = dict[int, set[Split]]()
    for at, word in enumerate(words):
        if at in used:
            continue
        if word in _NOT_TRAINED or (_TRAINED.fullmatch(word) and _NEGATIONS & set(words[max(at - 2, 0) : at])):
            verbs[at] = set()
        elif _TRAINED.fullmatch(word):
            governs_any = words[at - 1 : at] == ["for"] or not _ON.isdisjoint(words[at + 1 : at + 2])
            verbs[at] = set(Split) if governs_any else {Split.TRAIN}
    return verbs


def _find_groups(words: list[str]) -> Iterator[tuple[int, tuple[list[Split], list[int]]]]:
    """The place of each word such as `split`, with the splits that it belongs to and the places of all their words: the
    words before it (`train and test splits`), or otherwise behind it (`split: train`).
    """
    for place, word in enumerate(words):
        if word not in _PARTS:
            continue
        before = _find_names(words, range(place - 1, -1, -1))
        splits, places = before if before[0] else _find_names(words, range(place + 1, len(words)))
        if splits:
            yield place, (splits, [place, *places])


def _find_names(words: list[str], places: range) -> tuple[list[Split], list[int]]:
    """The splits that are named without a gap, and the places of their words."""
    splits = dict[int, Split]()
    for at in places:
        if split := name_split(words[at]):
            splits[at] = split
        elif words[at] not in _BETWEEN and not words[at].isdigit():
            break
    used = range(min(splits), max(splits) + 1) if splits else ()
    return list(splits.values()), list(used)


def _words(sentence: str) -> list[str]:
    return [match[0].strip("./-") for _, match in zip(range(_MAX_WORDS), _WORD.finditer(sentence), strict=False)]
