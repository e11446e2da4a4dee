"""The card of a data folder: a README.md in the format of Hugging Face data sets. The text is in data_card.md.jinja."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from pricer.redaction import redact
from pricer.views import data_tables
from pricer.views.formatting import share
from pricer.views.markdown import code_block, one_line, render_markdown

if TYPE_CHECKING:
    from pricer.commands.data import Prepared

_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))


def data_card(result: "Prepared") -> str:
    """The README.md of a data folder. Text from outside cannot become markup, and tokens are redacted."""
    count = sum(result.summary.items.values())
    text = render_markdown(
        "data_card.md.jinja",
        _filters(),
        name=result.folder.name if result.folder else "data",
        result=result,
        summary=result.summary,
        prompts=result.prompts,
        unit=result.unit,
        count=count,
        size=next((name for limit, name in _SIZES if count < limit), "n>10M"),
        tables=data_tables,
    )
    return redact(text)


def _filters() -> dict[str, Callable[..., object]]:
    return {
        "code_block": code_block,
        "share": share,
        "quoted": lambda text: json.dumps(one_line(text), ensure_ascii=False),
    }
