"""Which column of a table is what: recognised by names in several languages and by what a sample of rows holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pricer.core.items import name_split
from pricer.data.column_facts import ColumnFacts, Mark, find_decimal_mark, look_at
from pricer.data.column_names import (
    AMOUNT,
    AMOUNT_ENDS,
    CATEGORY,
    DESCRIPTION,
    ID,
    MAKER,
    OTHER_PRICE,
    PREFERRED,
    PRICE,
    PRICE_ENDS,
    SPLIT,
    TITLE,
    TITLE_ENDS,
    name_words,
)
from pricer.data.leaks import find_leaks, find_ratios

# The share of cells above zero from which a column can be the price at all.
_MIN_POSITIVE = 0.5
# A text with so many words on average describes something; a shorter one needs a name that says so.
_TEXT_WORDS = 5.0


@dataclass(frozen=True, slots=True)
class Given:
    """The columns that the user named. None: to be recognised."""

    description: tuple[str, ...] | None = None
    price: str | None = None
    title: str | None = None
    category: str | None = None
    decimal_mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Something that the data does not decide: the setting, a sentence, and the candidates, the likeliest first."""

    setting: str
    text: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recognised:
    """What the columns are. `description` has several columns if there is no text. `left_out` has a reason for each
    column that is not used although it has values. `question` is the first thing to ask; None: all is certain.
    """

    description: tuple[str, ...] = ()
    price: str = ""
    title: str | None = None
    category: str | None = None
    split_column: str | None = None
    decimal_mark: Mark = "."
    currency: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    question: Question | None = None


def recognise_columns(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], given: Given, *, are_all: bool = True
) -> Recognised:
    """Recognise the columns of a table from a sample of its rows. What is `given` is taken as it is. `are_all`: the
    sample is the whole table, so a column that does not vary in it never does.
    """
    facts = {name: look_at(name, [row.get(name) for row in rows], given.decimal_mark or ".") for name in columns}
    price, question = (given.price, None) if given.price else _find_price(facts.values())
    if price is None:
        return Recognised(question=question)
    if facts[price].positive < _MIN_POSITIVE:
        text = f"{price} is a number above zero in only {facts[price].positive:.0%} of its cells"
        return Recognised(question=Question("price", text, ()))
    mark = given.decimal_mark or find_decimal_mark([row.get(price) for row in rows])
    if mark is None:
        text = f"is 1.299 in the column {price} a thousand two hundred and ninety-nine (,) or one point three (.)?"
        return Recognised(price=price, question=Question("decimal_mark", text, (",", ".")))
    if mark != (given.decimal_mark or "."):
        facts = {name: look_at(name, [row.get(name) for row in rows], mark) for name in columns}
    wanted = {*(given.description or ()), given.title, given.category}
    left_out = _leave_out(facts, price, wanted, are_all=are_all)
    rest = {name: each for name, each in facts.items() if name != price and name not in left_out}
    split_column = next((name for name in rest if _says_split(name, [row.get(name) for row in rows])), None)
    rest.pop(split_column or "", None)
    title = given.title or _find_title(rest.values())
    category = given.category or _find_category(rest.values())
    description, question = (given.description, None) if given.description else _find_text(rest.values(), title)
    if description == (title,) or (description is None and given.title is None):
        title = None
    if description is None and question is None:
        description = tuple(rest)
    unused = tuple(name for name in rest if name not in {*(description or ()), title, category})
    currency = facts[price].currency
    return Recognised(
        description or (), price, title, category, split_column, mark, currency, left_out, unused, question
    )


def _find_price(facts: Iterable[ColumnFacts]) -> tuple[str | None, Question | None]:
    usable = [
        each
        for each in facts
        if each.is_numeric
        and each.positive >= 0.8
        and each.filled >= 0.5
        and each.distinct > 1
        and not each.counts_rows
        and not ID & set(name_words(each.name))
    ]
    ranked = sorted(usable, key=_price_score, reverse=True)
    scores = [_price_score(each) for each in ranked]
    names = tuple(each.name for each in ranked)
    if not ranked:
        return None, Question("price", "no column has numbers above zero", ())
    if len(ranked) == 1 or (scores[0] > 0 and scores[0] > scores[1]):
        return names[0], None
    candidates = names[: scores.count(scores[0])] if scores[0] > 0 else names
    return None, Question("price", "which column is the price?", candidates)


def _price_score(facts: ColumnFacts) -> float:
    words = name_words(facts.name)
    score = 0.0
    if PRICE & set(words) or any(word.endswith(PRICE_ENDS) for word in words):
        score = 3 + (len(words) == 1)
    elif AMOUNT & set(words) or any(word.endswith(AMOUNT_ENDS) for word in words):
        score = 2 + (len(words) == 1 and words[0] in AMOUNT)
    if score:
        score += (1 if PREFERRED & set(words) else 0) - (2 if OTHER_PRICE & set(words) else 0)
    return score + (1 if facts.currency else 0)


def _leave_out(
    facts: Mapping[str, ColumnFacts], price: str, wanted: set[str | None], *, are_all: bool
) -> dict[str, str]:
    """The columns that cannot be part of a description, with the reason. Those that the user named are `wanted`."""
    left_out: dict[str, str] = {}
    for name, each in facts.items():
        words = set(name_words(name))
        is_identifier = not name.strip() or each.counts_rows or (ID & words and each.distinct_share > 0.5)
        reasons = {
            "empty": are_all and each.filled == 0,
            "holds objects": each.nested > 0.5,
            "an identifier": is_identifier,
            "holds links": each.links > 0.5,
            "the same in every row": are_all and each.distinct == 1 and each.filled == 1,
            "another price": each.is_numeric and bool(PRICE & words or _names_price(name, price)),
        }
        if (
            name != price
            and name not in wanted
            and (reason := next((r for r, is_so in reasons.items() if is_so), None))
        ):
            left_out[name] = reason
    numeric = [each for name, each in facts.items() if each.is_numeric and name not in {price, *left_out, *wanted}]
    numeric.sort(key=_price_score, reverse=True)  # the most like a price first
    numeric.sort(key=lambda each: not (OTHER_PRICE | AMOUNT) & set(name_words(each.name)))
    numbers = {each.name: each.numbers for each in numeric}
    # Only a name tells a ratio of two prices from an area beside the price per square metre.
    ratios = {name: values for name, values in numbers.items() if OTHER_PRICE & set(name_words(name))}
    others = {name: facts[name].numbers for name, reason in left_out.items() if reason == "another price"}
    left_out |= find_ratios(facts[price].numbers, ratios, others)
    kept = {name: values for name, values in numbers.items() if name not in left_out}
    return left_out | find_leaks(facts[price].numbers, kept)


def _names_price(name: str, price: str) -> bool:
    """Whether a name has the last word of the price's own name in it: `logwage` beside `wage`."""
    words = [word for word in name_words(price) if word in PRICE | AMOUNT]
    return any(word.endswith(words[-1]) for word in name_words(name)) if words else False


def _says_split(name: str, cells: Sequence[Any]) -> bool:
    values = {cell for cell in cells if isinstance(cell, str)}
    return bool(SPLIT & set(name_words(name))) and bool(values) and all(map(name_split, values))


def _find_title(facts: Iterable[ColumnFacts]) -> str | None:
    named = [each for each in facts if each.texts >= 0.8 and each.distinct_share > 0.3 and _names_title(each.name)]
    return max(named, key=lambda each: each.characters).name if named else None


def _names_title(name: str) -> bool:
    words = name_words(name)
    return not DESCRIPTION & set(words) and bool(TITLE & set(words) or any(word.endswith(TITLE_ENDS) for word in words))


def _find_category(facts: Iterable[ColumnFacts]) -> str | None:
    named = [e for e in facts if e.texts >= 0.8 and e.distinct > 1 and e.distinct_share <= 0.5]
    for words in (CATEGORY, MAKER):
        if found := next((each.name for each in named if words & set(name_words(each.name))), None):
            return found
    return None


def _find_text(facts: Iterable[ColumnFacts], title: str | None) -> tuple[tuple[str, ...] | None, Question | None]:
    """The column with the description. (None, None) if there is no text, and the attributes have to do."""
    texts = [each for each in facts if each.texts >= 0.8 and each.filled >= 0.5 and each.distinct_share > 0.2]
    named = [each for each in texts if DESCRIPTION & set(name_words(each.name)) and each.words >= 1.5]
    long = [each for each in texts if each.words >= _TEXT_WORDS and each.name != title]
    ranked = sorted(named or long, key=lambda each: each.characters, reverse=True)
    if not ranked:
        others = [each for each in facts if each.name != title]
        return ((title,), None) if title and not others else (None, None)
    if len(ranked) > 1 and ranked[0].characters < 1.5 * ranked[1].characters:
        candidates = tuple(each.name for each in ranked)
        return None, Question("description", "which column describes the product?", candidates)
    return (ranked[0].name,), None
