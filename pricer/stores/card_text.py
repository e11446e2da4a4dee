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
_TRAINED = {"trained", "training", "train", "tuned", "finetuned", "finetuning", "fine-tuned", "fine-tuning"}
# What follows one of these was not trained on, or the sentence is about something else.
_NOT_TRAINED = {
    *("evaluated", "evaluation", "evaluate", "tested", "testing", "validated", "validation", "measured", "scored"),
    *("reported", "results", "benchmarked", "held", "held-out", "unseen", "reserved", "kept", "not", "never", "no"),
    *("without", "except", "excluding", "excludes", "excluded", "while", "whereas", "separate", "disjoint"),
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
        name = "/".join(rest.split("/")[:2]).rstrip(".")
        if name.casefold() in ids or (is_link and _ID.fullmatch(name)):
            found.append(ids.get(name.casefold(), name))
    return list(dict.fromkeys(found))


def find_trained_splits(sentence: str) -> tuple[Split, ...]:
    """The splits that a sentence says were trained on, such as `trained on the train and validation splits`.

    Each split belongs to the last verb before it in the same clause, otherwise to the next verb, otherwise to the last
    verb of an earlier clause. Without any verb (`Data: user/name (split: train)`), only `train` counts.
    """
    words = [word.lower() for word in _words(sentence)]
    groups = dict(_find_groups(words))
    used = {at for _, places in groups.values() for at in places}
    verbs = {
        at: word in _TRAINED and _NEGATIONS.isdisjoint(words[max(at - 2, 0) : at])
        for at, word in enumerate(words)
        if at not in used and word in _TRAINED | _NOT_TRAINED
    }
    commas = [at for at, word in enumerate(words) if word == "," and at not in used]
    found = []
    for place, (splits, _) in groups.items():
        clause = max((at for at in commas if at < place), default=-1)
        before = [at for at in verbs if at < place]
        verb = next((at for at in reversed(before) if at > clause), None)
        verb = verb if verb is not None else next((at for at in verbs if at > place), None)
        verb = verb if verb is not None else max(before, default=None)
        if verb is not None:
            found += splits if verbs[verb] else []
        elif not verbs:
            found += [split for split in splits if split is Split.TRAIN]
    return tuple(dict.fromkeys(found))


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
    return [match[0] for _, match in zip(range(_MAX_WORDS), _WORD.finditer(sentence), strict=False)]
