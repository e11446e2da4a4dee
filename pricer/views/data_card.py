"""The card of a data folder: a README.md in the format of Hugging Face data sets. The text is in data_card.md.jinja."""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pricer.redaction import redact
from pricer.views import data_tables
from pricer.views.formatting import share
from pricer.views.markdown import code, code_block, one_line

if TYPE_CHECKING:
    from pricer.commands.data import Prepared

_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))


def data_card(result: "Prepared") -> str:
    """The README.md of a data folder. Text from outside cannot become markup, and tokens are redacted."""
    count = sum(result.summary.items.values())
    text = (
        _environment()
        .get_template("data_card.md.jinja")
        .render(
            name=result.folder.name if result.folder else "data",
            result=result,
            summary=result.summary,
            prompts=result.prompts,
            unit=result.unit,
            count=count,
            size=next((name for limit, name in _SIZES if count < limit), "n>10M"),
            tables=data_tables,
        )
    )
    return redact(text)


@cache
def _environment() -> Environment:
    environment = Environment(  # noqa: S701  # Jinja escapes only HTML, not Markdown; `code` does
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": code,
        "code_block": code_block,
        "share": share,
        "number": lambda count: f"{count:,}",
        "quoted": lambda text: json.dumps(one_line(text), ensure_ascii=False),
    }
    return environment
