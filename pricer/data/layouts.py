"""Where a row has its description and its price: in columns, in a whole prompt, or in a chat."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pricer.config import DataConfig
from pricer.data.attributes import described_columns, read_description
from pricer.data.ready_prompts import Splitter, find_frame, look_like_prompts, split_chat, split_prompt
from pricer.data.rows import list_columns
from pricer.errors import DataError

NOT_A_PROMPT = "not a prompt"
OTHER_PROMPT = "other question or lead"

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a row is left out: a short fixed `reason`, and a text that says what was there."""

    reason: str
    problem: str


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a row that are used. They are not checked."""

    description: Any
    price: Any
    title: Any = None
    category: Any = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read the rows of a source. `question` and `lead` are the texts around the descriptions in ready-made
    prompts; None where there are none. `price` names the price in messages.
    """

    name: str
    read: Callable[[Values], Cells | Rejection]
    price: str
    question: str | None = None
    lead: str | None = None


def find_layout(config: DataConfig, columns: Sequence[str], first: Sequence[Values], where: str) -> Layout:
    """The layout of a source with these columns, from the config and the first rows. A DataError if a column is missing
    or the rows are not what `data.layout` says.
    """
    name = _detect(config, columns, first) if config.layout == "auto" else config.layout
    if name == "messages":
        _require(["messages"], columns, where)
        return _read_prompts(config, "messages", split_chat, first, where)
    if name == "prompts":
        column, answer = _prompt_column(config, columns), _answer_column(config, columns)
        _require([column], columns, where)
        price = config.price if config.price in columns else None
        return _read_prompts(config, name, lambda row: split_prompt(row, column, answer), first, where, price)
    _require([*described_columns(config.description), config.price], columns, where)
    return Layout("columns", lambda row: _read_columns(config, row), config.price)


def _detect(config: DataConfig, columns: Sequence[str], first: Sequence[Values]) -> str:
    """The layout that `auto` stands for."""
    answer = _answer_column(config, columns)

    def has_prompts(column: str) -> bool:
        return look_like_prompts(first, lambda row: split_prompt(row, column, answer), config.price)

    named = described_columns(config.description)
    if all(column in columns for column in named):
        return "prompts" if len(named) == 1 and has_prompts(named[0]) else "columns"
    if "messages" in columns:
        return "messages"
    if "prompt" in columns and answer:
        return "prompts"
    return "prompts" if "text" in columns and has_prompts("text") else "columns"


def _prompt_column(config: DataConfig, columns: Sequence[str]) -> str:
    named = described_columns(config.description)[0]
    return next((column for column in (named, "prompt", "text") if column in columns), named)


def _answer_column(config: DataConfig, columns: Sequence[str]) -> str | None:
    """The column with the answer to a prompt; None if the prompt itself ends with it."""
    return next((column for column in ("completion", config.price) if column in columns), None)


def _read_prompts(
    config: DataConfig, name: str, split: Splitter, first: Sequence[Values], where: str, price: str | None = None
) -> Layout:
    """The layout of ready-made prompts. All rows must have the question and the lead of the first rows. `price` is the
    column of the price; None: the answer is the price.
    """
    frame = find_frame([split(row) for row in first])
    if frame is None:
        raise DataError(
            f"no row at the beginning of {where} is a prompt: a question, a description and a lead like `Price is $`",
            "data.layout: columns",
        )
    question, lead = frame

    def read(row: Values) -> Cells | Rejection:
        parts = split(row)
        if parts is None:
            return Rejection(NOT_A_PROMPT, "the row is not a prompt with a question, a description and a lead")
        if not question:
            parts = parts.without_question()
        if (parts.question, parts.lead) != frame:
            other = parts.question if parts.question != question else parts.lead
            return Rejection(OTHER_PROMPT, f"{other[:80]!r} is not the question or lead of the first rows")
        found = row.get(price) if price else parts.number
        return Cells(parts.description, found, *_title_and_category(config, row))

    # A completion follows a currency sign at once, and a word after a space.
    joined = f"{lead} " if lead[-1:].isalnum() or lead.endswith(":") else lead
    return Layout(name, read, price or "the price", question or None, joined or None)


def _read_columns(config: DataConfig, row: Values) -> Cells:
    description = read_description(row, config.description)
    return Cells(description, row.get(config.price), *_title_and_category(config, row))


def _title_and_category(config: DataConfig, row: Values) -> tuple[Any, Any]:
    title = row.get(config.title) if config.title else None
    return title, row.get(config.category) if config.category else None


def _require(wanted: Sequence[str], columns: Sequence[str], where: str) -> None:
    if missing := [column for column in wanted if column not in columns]:
        raise DataError(
            f"{where} has no column {', '.join(missing)}; it has {list_columns(columns)}",
            "name the columns in the config: data.description, data.price",
        )
