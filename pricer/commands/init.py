"""`pricer init`: a config for a data set, with what its first rows say about its columns."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pricer.commands.parts.draft import Findings, Setting, choose_base, draft_head, draft_settings
from pricer.commands.parts.watcher import Watcher
from pricer.config import DataConfig, RunConfig
from pricer.config_file import parse_config, to_commented_yaml
from pricer.config_schema import SCHEMA_FILE, schema_text
from pricer.core.prices import format_price
from pricer.data.columns import Given, Question, Recognised, recognise_columns
from pricer.data.layouts import Layout, find_layout
from pricer.data.rows import Source, list_columns
from pricer.data.sources import open_source
from pricer.errors import DataError, PricerError
from pricer.stores.files import write_atomically

# Rows that are looked at. More say little else.
_SAMPLE = 5_000
# Rows that show whether they are ready-made prompts.
_FIRST = 200

Ask = Callable[[Question], str]
OpenWatcher = Callable[[], AbstractContextManager[Watcher]]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the user decided: columns, unit, base, and the column with the time (None: splits do not depend on it)."""

    given: Given
    unit: str | None = None
    base: str | None = None
    time_column: str | None = None


@dataclass(frozen=True, slots=True)
class Initialised:
    """What was recognised, as names and values for a person, and the files that were written. `folder` is the data
    folder that training will use; None if none was made. `problem` is what keeps the config from being trained as it
    is; None if nothing is known. `next_command` is what to do next.
    """

    recognised: tuple[tuple[str, str], ...]
    written: tuple[Path, ...]
    folder: Path | None
    problem: PricerError | None
    next_command: str


def init(source: str, options: Options, output: Path | None, ask: Ask | None, open_watcher: OpenWatcher) -> Initialised:
    """Write a config for a source. `ask` answers what the data does not decide; None: this is a DataError that names
    the candidates and the option. `open_watcher` is called after the last question. A PricerError if the output exists.
    """
    target = output or Path(f"{_name_config(source)}.yaml")
    if target.exists() or target.is_symlink():
        raise PricerError(f"{target} is already there, and nothing is overwritten", "another name: --output mine.yaml")
    opened, config, rows = _open(source)
    are_all, rows = len(rows) <= _SAMPLE, rows[:_SAMPLE]
    _check_given(source, opened.columns, options)
    layout, config = _find_ready_made(config, opened.columns, rows, options.given)
    columns = Recognised()
    if layout is None:
        columns = _recognise(source, opened.columns, rows, options.given, ask, are_all=are_all)
    splits = list(dict.fromkeys(file.split for file in opened.files if file.split))
    found = Findings(source, config, columns, layout, len(rows), are_all, splits, options.unit, options.time_column)
    base, head = _choose_base(options.base), draft_head(shlex.quote(str(target)), found)
    text = _write_config(head, draft_settings(found, base, {}))
    settled = _Settled()
    if are_all:
        with open_watcher() as watcher:
            settled = _settle(parse_config(text.encode(), str(target)), watcher)
    text = _write_config(head, draft_settings(found, base, settled.values))
    written = _write(target, text)
    return Initialised(
        found.describe(), written, settled.folder, settled.problem, f"pricer data {shlex.quote(str(target))}"
    )


def _open(source: str) -> tuple[Source, DataConfig, Rows]:
    """Open a source in the encoding that it has, and read one row more than the sample, if there are so many."""
    config, tried = DataConfig(source=source), {"utf-8"}
    while True:
        try:
            opened = open_source(config)
            rows = [row.values for row in islice(opened.rows(), _SAMPLE + 1) if row.problem is None]
        except DataError as error:
            # The reader knows which encoding the file may have. Each is tried once: in windows-1252 all bytes mean
            # something.
            suggested = re.match(r"data\.encoding: ([\w-]+)", error.hint)
            if suggested is None or suggested[1] in tried:
                raise
            tried.add(suggested[1])
            config = config.model_copy(update={"encoding": suggested[1]})
            continue
        if not rows:
            raise DataError(f"no row of {source} can be read", "pricer data shows why")
        return opened, config, rows


def _check_given(source: str, columns: Sequence[str], options: Options) -> None:
    """Raise a DataError if the source lacks a column that was given."""
    given = options.given
    named = [*(("--description", name) for name in given.description or ()), ("--price", given.price)]
    named += [("--title", given.title), ("--category", given.category), ("--time", options.time_column)]
    for option, name in named:
        if name is not None and name not in columns:
            raise DataError(f"{source} has no column {name}; it has {list_columns(columns)}", f"{option} COLUMN")


def _find_ready_made(
    config: DataConfig, columns: Sequence[str], rows: Rows, given: Given
) -> tuple[Layout | None, DataConfig]:
    """The layout of ready-made prompts or chats, and the config that reads it. No layout: the rows are a table."""
    if given.description and len(given.description) > 1:
        return None, config
    named = {"description": given.description[0]} if given.description else {}
    named |= {"price": given.price} if given.price else {}
    named_config = config.model_copy(update=named)
    try:
        layout = find_layout(named_config, columns, rows[:_FIRST], config.source)
    except DataError:
        return None, config  # columns with other names, which are recognised next
    return (None, config) if layout.name == "columns" else (layout, named_config)


def _recognise(
    source: str, columns: Sequence[str], rows: Rows, given: Given, ask: Ask | None, *, are_all: bool
) -> Recognised:
    """Recognise the columns of a table, and ask for what is unsure."""
    while (found := recognise_columns(columns, rows, given, are_all=are_all)).question:
        question = found.question
        if not question.candidates:
            raise DataError(f"{source}: {question.text}; it has {list_columns(columns)}", "--price COLUMN")
        if ask is None:
            option = f"--{question.setting.replace('_', '-')} {shlex.quote(question.candidates[0])}"
            raise DataError(
                f"{question.text} {' or '.join(question.candidates)}", f"pricer init {shlex.quote(source)} {option}"
            )
        answer = ask(question)
        value = (answer,) if question.setting == "description" else answer
        given = replace(given, **{question.setting: value})  # type: ignore[arg-type]
    if not found.description:
        raise DataError(f"{source} has no column that describes an item; it has {list_columns(columns)}")
    return found


@dataclass(frozen=True, slots=True)
class _Settled:
    """What each `auto` is now, the data folder, and why training would refuse the config (None: it would not)."""

    values: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    problem: PricerError | None = None


def _settle(config: RunConfig, watcher: Watcher) -> _Settled:
    """Prepare the data of a config. Only data of a few rows are prepared here, because that takes a moment."""
    from pricer.commands.parts.settling import planned_machine
    from pricer.commands.parts.setup import prepare
    from pricer.data.preparation import prepare_data

    folder = None
    try:
        folder = prepare_data(config.data, watcher.preparing).path
        setup = prepare(config, planned_machine(config))
    except PricerError as error:
        return _Settled(folder=folder, problem=error)
    style, highest = setup.template.price_format, setup.items.max_train_price
    unit = style.price_unit
    settled = {name: f"Now {default.text}: {default.reason}." for name, default in setup.defaults.items()}
    settled["data.decimals"] = f"Now {unit.decimals}: prices are written in steps of {unit.exact(unit.step)}."
    written = f"{unit.rounded(highest)} is written {format_price(highest, style)}"
    settled["prompt.price_format"] = f"Now {style.style}: {written}."
    return _Settled(settled, folder)


def _choose_base(wanted: str | None) -> Setting:
    if wanted is not None:
        return choose_base(wanted, None)
    from pricer.ml.devices import gpu_here

    return choose_base(None, gpu_here())


def _write_config(head: Sequence[str], settings: Sequence[Setting]) -> str:
    return to_commented_yaml(head, [(each.name, each.value, each.comment) for each in settings])


def _write(target: Path, text: str) -> tuple[Path, ...]:
    """Write the config, and the schema beside it if there is none."""
    schema = target.parent / SCHEMA_FILE
    written = [target] if schema.exists() else [target, schema]
    if schema in written:
        write_atomically(schema, schema_text())
    write_atomically(target, text)
    return tuple(written)


def _name_config(source: str) -> str:
    """The name of a config for a source: `cars.csv` and `ann/cars` are cars."""
    stem = re.split(r"[/\\]", source.rstrip("/\\"))[-1].split(".")[0].removeprefix("builtin:")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "mine"
