"""The config that `pricer init` writes: each setting with a comment that says why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pricer.config import DataConfig
from pricer.config_schema import SCHEMA_FILE
from pricer.core.gpus import Gpu
from pricer.core.items import Split
from pricer.data.columns import Recognised
from pricer.data.layouts import Layout
from pricer.redaction import hub_address

# Settings that are `auto`, each with what it is settled from.
AUTO = {
    "data.decimals": "the prices",
    "data.val_fraction": "the number of items",
    "data.test_fraction": "the number of items",
    "prompt.price_format": "the tokenizer and the highest price",
    "prompt.max_length": "the lengths of the descriptions in tokens",
    "train.epochs": "the number of items",
    "train.batch_size": "the number of items",
    "train.learning_rate": "the size of the base",
    "train.checkpoint_every": "the number of steps",
}
_SMALLEST_FOR_3B = 12 * 2**30


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the config, as `section.key`, with its value and a comment of one line; empty: it has none."""

    name: str
    value: Any
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known about a source. `config` has what it takes to read its files. `layout` is None for a table, whose
    columns are in `columns`. `rows` were looked at; `are_all` says whether it has no more. `splits` are its own.
    """

    source: str
    config: DataConfig
    columns: Recognised
    layout: Layout | None
    rows: int
    are_all: bool
    splits: Sequence[Split]
    unit: str | None = None
    time_column: str | None = None

    def describe(self) -> tuple[tuple[str, str], ...]:
        """What was recognised, as names and values for a person."""
        found = self.columns
        rows = ("rows", f"{self.rows:,}" if self.are_all else f"the first {self.rows:,} were looked at")
        if self.layout:
            frame = [("question", self.layout.question), ("lead", self.layout.lead)]
            return (rows, ("layout", self.layout.name), *((name, text) for name, text in frame if text))
        optional = {"title": found.title, "category": found.category, "split": found.split_column}
        optional |= {"time": self.time_column, "encoding": self.config.encoding}
        parts = [
            rows,
            ("price", f"{found.price}, in {self.unit or found.currency or '$'}"),
            ("description", ", ".join(found.description)),
            *((name, value) for name, value in optional.items() if value and value != "utf-8"),
            ("left out", "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())),
            ("not used", ", ".join(found.unused)),
        ]
        return tuple((name, value) for name, value in parts if value)


def draft_settings(found: Findings, base: Setting, settled: Mapping[str, str]) -> list[Setting]:
    """The settings for a source. `settled` says what each `auto` is now, as far as it is known."""
    data = _prompt_settings(found, found.layout) if found.layout else _column_settings(found)
    autos = [Setting(name, "auto", settled.get(name, f"From {origin}.")) for name, origin in AUTO.items()]
    by_section: dict[str, list[Setting]] = {}
    for setting in (base, Setting("data.source", found.source), *_reading(found), *data, *_splits(found), *autos):
        by_section.setdefault(setting.name.split(".")[0], []).append(setting)
    return [setting for settings in by_section.values() for setting in settings]


def draft_head(target: str, found: Findings) -> list[str]:
    """The comment lines at the top of the file."""
    rows = f"{found.rows:,} rows" if found.are_all else f"the first {found.rows:,} rows"
    return [
        f"yaml-language-server: $schema={SCHEMA_FILE}",
        f"pricer train {target}",
        "",
        f"Written by `pricer init` from {rows} of {found.source}.",
        "`auto` is settled when training starts; --dry-run shows each value with its reason.",
    ]


def choose_base(wanted: str | None, gpu: Gpu | None) -> Setting:
    """The base for this machine, with the reason."""
    if wanted is not None:
        return Setting("model.base", wanted)
    if gpu is None:
        why = "This machine has no GPU, so this is the tiny bundled base; on a GPU, a Llama 3.2 knows much more."
        return Setting("model.base", "builtin:base", why)
    size = "3B" if gpu.memory >= _SMALLEST_FOR_3B else "1B"
    base = f"meta-llama/Llama-3.2-{size}"
    why = f"For this GPU ({gpu.name}). Accept its licence on {hub_address(base)} once, and run `hf auth login`."
    return Setting("model.base", base, why)


def _reading(found: Findings) -> Iterator[Setting]:
    if found.config.encoding != DataConfig().encoding:
        yield Setting("data.encoding", found.config.encoding, "The file is not UTF-8.")


def _column_settings(found: Findings) -> Iterator[Setting]:
    columns = found.columns
    left_out = ", ".join(f"{name} ({reason})" for name, reason in columns.left_out.items())
    if len(columns.description) == 1:
        more = f" To add other columns, make it a list: [{', '.join([*columns.description, *columns.unused])}]."
        yield Setting("data.description", columns.description[0], f"The text.{more if columns.unused else ''}")
    else:
        why = "No column has a text, so the names and values of these describe an item."
        why += f" Left out: {left_out}." if left_out else ""
        yield Setting("data.description", list(columns.description), why)
    yield Setting("data.price", columns.price)
    if columns.title:
        yield Setting("data.title", columns.title, "The prompt shows it above the description.")
    if columns.category:
        yield Setting("data.category", columns.category, "The error is broken down by it.")
    mark = "`.` reads 1,299.00, `,` reads 1.299,00."
    if columns.decimal_mark != DataConfig().decimal_mark:
        yield Setting("data.decimal_mark", columns.decimal_mark, mark)
    if found.unit:
        yield Setting("data.unit", found.unit)
    elif columns.currency:
        yield Setting("data.unit", columns.currency, "Found beside the prices or in the name of their column.")
    else:
        yield Setting(
            "data.unit", "$", "Nothing says what the prices are in. Any unit will do: €, kWh, thousand euros."
        )


def _prompt_settings(found: Findings, layout: Layout) -> Iterator[Setting]:
    frame = f"question {layout.question or 'none'}, lead {layout.lead or 'none'}"
    yield Setting("data.layout", layout.name, f"The rows are ready-made prompts: {frame}.")
    for name, default in (("description", "description"), ("price", "price")):
        value = getattr(found.config, name)
        if value != default:
            yield Setting(f"data.{name}", value)
    yield Setting("data.unit", found.unit or "$")


def _splits(found: Findings) -> Iterator[Setting]:
    if found.time_column:
        why = "The newest items are for the test, those before them for validation."
        yield Setting("data.time_column", found.time_column, why)
    elif found.columns.split_column:
        yield Setting("data.split_column", found.columns.split_column, "It says train, val or test.")
    elif found.splits:
        names = ", ".join(found.splits)
        yield Setting("data.keep_splits", True, f"The source has its own splits ({names}); what is missing is cut.")
