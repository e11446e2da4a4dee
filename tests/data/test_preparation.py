"""From a source to items: counted, split, named, and the same every time."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pricer.config import DataConfig
from pricer.core.items import Item, Split
from pricer.data.preparation import load_items, prepare_data, require
from pricer.errors import DataError
from tests.data.item_files import LAMP, csv, error, jsonl, left_out, load, parquet, prices

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "ivory",
    "jade",
    "karst",
    "lilac",
    "maple",
    "north",
    "ochre",
    "pearl",
]


def text(n: int) -> str:
    """A text of 48 words that has no five words in a row with another one in common."""
    return " ".join(f"{word}{n}" for word in WORDS * 3)


def rows(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"description": text(i), "price": 10 + i, **more} for i in range(n)]


def summary(source: str, **settings: Any) -> Any:
    return prepare_data(DataConfig(source=source, **settings)).summary


def ids(source: str, **settings: Any) -> dict[Split, list[str]]:
    items = load_items(DataConfig(source=source, **settings))
    return {split: [item.id for item in items.items(split)] for split in Split}


class TestItems:
    def test_the_kinds_of_file_hold_the_same_items(self) -> None:
        sources = [
            jsonl({"description": "A lamp", "price": 12.5}, {"description": "A bed", "price": 300}),
            csv("A lamp,12.5", "A bed,300"),
            parquet(["A lamp", "A bed"], [12.5, 300.0]),
        ]

        sets = [load_items(DataConfig(source=source)) for source in sources]

        assert prices(sources[0]) == {"A lamp": 12.5, "A bed": 300.0}
        assert sets[0].train == sets[1].train == sets[2].train
        assert len({one.fingerprint for one in sets}) == 1

    def test_columns_go_by_the_names_in_the_config(self) -> None:
        source = jsonl({"text": "Of brass", "usd": 3, "name": "Lamp", "kind": None, "price": "not used"})

        item = load(source, description="text", price="usd", title="name", category="kind")["Of brass"]

        # The first 12 hex digits of the sha256 of "Lamp\nOf brass".
        assert item == Item("a0753d66b59d", "Of brass", 3.0, "Lamp", None)

    def test_the_bundled_data_is_read_and_its_items_are_where_they_were(self) -> None:
        items = load_items(DataConfig())

        assert (len(items.train), len(items.val), len(items.test)) == (5013, 618, 628)
        # A change here moves items between train and test, or trains in another order: published numbers would be void.
        ids = [[item.id for item in items.items(split)] for split in Split]
        assert hashlib.sha256(repr(ids).encode()).hexdigest()[:12] == "859815d3c10b"
        assert (items.train_median, items.max_train_price, items.near_copies) == (2144.0, 5399.0, frozenset())

    def test_prompts_give_their_question_and_lead(self) -> None:
        source = jsonl(
            *({"prompt": f"How much?\n\nlamp {n}\n\nPrice is $", "completion": f"{n + 1}.00"} for n in range(1, 20))
        )

        items = load_items(DataConfig(source=source))

        assert (items.prompts_question, items.prompts_lead) == ("How much?", "Price is $")
        assert prices(source)["lamp 7"] == 8.0

    def test_a_source_without_rows_says_so(self) -> None:
        assert error(csv()).message == "items.csv has a header and no rows"

    def test_a_missing_column_is_named(self) -> None:
        assert error(csv("A lamp,5"), category="kind").message == (
            "items.csv has no column kind; it has description, price"
        )


class TestRejectedRows:
    def test_few_bad_rows_are_left_out_counted_and_listed(self) -> None:
        source = jsonl(*rows(40), {"description": "x", "price": "call for price"}, {"description": "", "price": 3})

        assert dict(summary(source).rejected) == {"price is not a number": 1, "no description": 1}
        assert left_out(source) == [
            {"reason": "price is not a number", "file": "items.jsonl", "line": 41,
             "row": {"description": "x", "price": "call for price"}},
            {"reason": "no description", "file": "items.jsonl", "line": 42, "row": {"description": "", "price": 3}},
        ]  # fmt: skip
        assert sum(summary(source).items.values()) == 40

    def test_more_bad_rows_than_allowed_are_an_error_that_names_the_first_ten(self) -> None:
        source = jsonl(LAMP, *[{"description": "x", "price": 0}] * 12)

        found = error(source)

        lines = found.message.splitlines()
        assert lines[0] == "price is 0, not above zero (items.jsonl, line 2)"
        assert lines[9] == "price is 0, not above zero (items.jsonl, line 11)"
        assert lines[10:] == [
            "and 2 more rows like these",
            "12 of 13 rows cannot be used: price not above zero 12",
        ]
        assert found.hint == "mend these rows, or set data.max_rejected, which is 0.05"
        assert not list(Path("data").iterdir())

    def test_the_share_that_is_allowed_can_be_set(self) -> None:
        source = jsonl(*rows(9), {"description": "x"})

        assert error(source, max_rejected=0.09).message.endswith("1 of 10 rows cannot be used: no price 1")
        assert sum(summary(source, max_rejected=0.1).items.values()) == 9

    def test_one_bad_row_is_an_error_where_that_is_asked_for(self) -> None:
        source = jsonl(*rows(100), {"description": "x"})

        found = error(source, on_bad_row="error")

        assert found.message == "price is missing (items.jsonl, line 101)"
        assert found.hint == "mend these rows, or data.on_bad_row: reject"

    def test_prices_with_the_other_decimal_mark_are_recognised(self) -> None:
        source = jsonl(*({"description": f"lamp {n}", "price": f"{n},50 €"} for n in range(20)))

        assert error(source).hint == 'data.decimal_mark: "," reads them'
        assert prices(source, decimal_mark=",")["lamp 7"] == 7.5

    def test_rows_that_cannot_be_read_are_listed_with_their_text(self) -> None:
        Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(30)) + '{"description": "x"\n')

        (line,) = left_out("items.jsonl")

        assert (line["reason"], line["line"]) == ("cannot be read", 31)
        assert '{"description": "x"' in str(line["row"])

    def test_long_cells_are_cut_and_tokens_removed(self) -> None:
        secret = "hf_" + "a1B2" * 8
        source = jsonl(*rows(30), {"description": f"{secret} {'x' * 1000}", "price": secret})

        (line,) = left_out(source)

        assert secret not in json.dumps(line)
        assert line["row"]["price"] == "***"
        assert len(line["row"]["description"]) == 301

    def test_descriptions_that_end_in_their_price_are_refused(self) -> None:
        source = jsonl(*({"description": f"lamp {i}. Only ${100 + i}", "price": 100 + i} for i in range(20)))

        assert error(source).message == "20 of 20 descriptions of items.jsonl begin or end with their own price"

    @pytest.mark.parametrize(
        ("settings", "setting"),
        [({"description": ["description", "price"]}, "data.description"), ({"title": "price"}, "data.title")],
    )
    def test_the_price_is_no_part_of_the_text(self, settings: dict[str, Any], setting: str) -> None:
        found = error(jsonl(*rows(20)), **settings)

        assert found.message == f"{setting} names the price column, price, so the model would read every price"

    def test_a_column_that_says_the_split_may_say_nothing_else(self) -> None:
        source = jsonl(*rows(30, part="train"), *rows(1, part="holdout"))

        (line,) = left_out(source, split_column="part")

        assert line["reason"] == "no split"


class TestRepeatedItems:
    def test_an_item_is_kept_once_unless_its_price_differs(self) -> None:
        source = jsonl(LAMP, LAMP, {**LAMP, "price": 13}, LAMP)

        assert summary(source).dropped == {"duplicate": 2}
        assert [line["line"] for line in left_out(source)] == [2, 4]
        (found,) = [part for part in ids(source).values() if part]
        # The first 12 hex digits of the sha256 of "A lamp".
        assert found == ["06cd4842fffe", "06cd4842fffe-2"]

    def test_all_are_kept_where_that_is_asked_for(self) -> None:
        (found,) = [part for part in ids(jsonl(LAMP, LAMP), duplicates="keep").values() if part]

        assert found == ["06cd4842fffe", "06cd4842fffe-2"]

    @pytest.mark.parametrize("change", [".", "<p>", "\u200b", "&amp;", "!", " new"])
    def test_near_copies_are_in_one_split(self, change: str) -> None:
        first = rows(200)
        copies = [{**row, "description": row["description"] + change} for row in first]
        source = jsonl(*first, *copies)

        found = load(source)
        split_of = {key: split for split, part in ids(source).items() for key in part}

        assert len(found) in (200, 400)  # with the markup removed, a copy is an exact one
        if len(found) == 400:
            # The first word names the text.
            pairs = {(item.description.split()[0], split_of[item.id]) for item in found.values()}
            assert len(pairs) == 200
            assert summary(source).near_duplicate_groups == 200

    def test_near_copies_may_be_ignored(self) -> None:
        first = rows(200)
        source = jsonl(*first, *({**row, "description": row["description"] + " new"} for row in first))

        assert summary(source, near_duplicates="ignore").near_duplicate_groups == 0

    def test_where_they_are_ignored_repeated_words_are_still_counted(self) -> None:
        jsonl(*rows(30), name="own/train.jsonl")
        test = [text(500), text(3), text(3).upper(), text(4) + " new"]
        jsonl(*({"description": each, "price": 7} for each in test), name="own/test.jsonl")

        found = summary("own", near_duplicates="ignore", val_fraction=0)

        assert found.near_copies == {"val": 0, "test": 2}

    def test_a_group_with_many_of_all_items_is_a_warning(self) -> None:
        source = jsonl(*rows(60), *({"description": f"{text(0)} {i}", "price": 50} for i in range(20)))

        (warning,) = summary(source).warnings

        assert warning.startswith("21 of 80 items are near-duplicates of each other and in one group;")


class TestOwnSplits:
    def write(self) -> None:
        jsonl(*rows(100), name="own/train.jsonl")
        jsonl(*({"description": text(i) + " new", "price": 7} for i in (3, 5, 500)), name="own/test.jsonl")

    def test_they_are_kept_and_the_leak_is_counted(self) -> None:
        self.write()

        items = load_items(DataConfig(source="own", val_fraction=0.2))
        found = items.summary

        assert found is not None
        assert (found.own_splits, found.items["test"]) == (("train", "test"), 3)
        assert found.items["train"] + found.items["val"] == 100
        assert found.near_copies["test"] == len(items.near_copies)
        is_in_train = [any(item.description == text(i) for item in items.train) for i in (3, 5)]
        assert found.near_copies["test"] == sum(is_in_train) > 0
        assert any("test items have a near-copy among the training items" in warning for warning in found.warnings)
        assert (items.val_fraction, items.test_fraction) == (0.2, None)

    def test_they_can_be_joined_and_cut_anew(self) -> None:
        self.write()

        found = summary("own", keep_splits=False)

        assert (found.own_splits, found.near_copies) == ((), {"val": 0, "test": 0})

    def test_no_test_item_is_dropped_for_a_training_item(self) -> None:
        jsonl(*rows(30), name="own/train.jsonl")
        jsonl(*rows(3), name="own/test.jsonl")

        found = summary("own")

        assert (dict(found.dropped), found.items["test"]) == ({}, 3)

    def test_a_column_gives_the_split(self) -> None:
        source = jsonl(
            *rows(20, part="train"),
            {**LAMP, "part": "Validation"},
            {"description": "A bed", "price": 3, "part": "test"},
        )

        items = load_items(DataConfig(source=source, split_column="part"))

        assert ([item.description for item in items.val], [item.description for item in items.test]) == (
            ["A lamp"],
            ["A bed"],
        )

    def test_time_gives_the_split(self) -> None:
        source = jsonl(*({**row, "day": f"2024-01-{i + 1:02}"} for i, row in enumerate(rows(20))))

        items = load_items(DataConfig(source=source, time_column="day", val_fraction=0.1, test_fraction=0.2))

        # The days 20 to 17 are the newest fifth, 16 and 15 the tenth before them; prices are 9 + day.
        assert sorted(item.price for item in items.test) == [26, 27, 28, 29]
        assert sorted(item.price for item in items.val) == [24, 25]

    def test_dates_and_numbers_have_no_common_order(self) -> None:
        source = jsonl(*({**row, "day": "2024-01-31" if i else 2023} for i, row in enumerate(rows(20))))

        found = error(source, time_column="day")

        assert found.message == (
            "day has dates (items.jsonl, line 2) and numbers (items.jsonl, line 1), which have no common order"
        )


class TestLimits:
    def test_caps_keep_a_random_sample_of_each_kind(self) -> None:
        source = jsonl(
            *rows(300, kind="lamps"), *({"description": f"bed {i}", "price": 3, "kind": "beds"} for i in range(5))
        )

        found = summary(source, category="kind", max_per_category=100)

        assert found.categories == {"lamps": 100, "beds": 5}
        assert found.dropped == {"category cap": 200}
        # Not only test items: 3 standard deviations of 10 % of 105 are 9.2.
        assert found.items["test"] < 20

    def test_caps_by_price_count_bands_of_one_two_and_five(self) -> None:
        source = jsonl(*rows(90))  # 10 from $10 to $19, 30 from $20 to $49, 50 from $50 to $99

        found = summary(source, max_per_price_band=20)

        assert found.price_bands == ((10.0, 20.0, 10), (20.0, 50.0, 20), (50.0, 100.0, 20))
        assert found.dropped == {"price band cap": 40}

    def test_a_limit_is_a_sample_that_stays(self) -> None:
        few, more = (
            load_items(DataConfig(source=jsonl(*these), train_limit=limit))
            for these, limit in ((rows(40), 5), (rows(40)[::-1], 8))
        )

        assert len(few.train) == 5
        assert few.train == more.train[:5]
        assert few.fingerprint != more.fingerprint
        assert len(list(Path("data").glob("*"))) == 2  # of two orders of the rows; the limits changed nothing

    def test_the_median_is_of_the_training_items_of_the_run(self) -> None:
        items = load_items(DataConfig(source=jsonl(*rows(40)), train_limit=3))

        assert items.train_median == sorted(item.price for item in items.train)[1]

    def test_the_fingerprint_changes_with_a_price_a_text_a_split_and_a_limit(self) -> None:
        base = rows(20)
        cases: list[tuple[list[Any], dict[str, Any]]] = [
            (base, {}),
            ([*base[:-1], {**base[-1], "price": 99}], {}),
            ([*base[:-1], {**base[-1], "description": "other"}], {}),
            (base, {"test_fraction": 0.5}),
            (base, {"train_limit": 3}),
        ]

        fingerprints = {load_items(DataConfig(source=jsonl(*each), **more)).fingerprint for each, more in cases}

        assert len(fingerprints) == 5

    def test_ids_and_splits_stay_when_rows_are_added_and_moved(self) -> None:
        before = load_items(DataConfig(source=jsonl(*rows(40)), val_fraction=0.2, test_fraction=0.2))
        added = jsonl(LAMP, *reversed(rows(40)))
        after = load_items(DataConfig(source=added, val_fraction=0.2, test_fraction=0.2))

        for part in Split:
            assert set(before.items(part)) <= set(after.items(part))


class TestWarnings:
    def test_prices_that_may_be_thousands_are_asked_about(self) -> None:
        source = jsonl(*({"description": text(i), "price": f"1.{200 + i}"} for i in range(10)))

        (warning,) = summary(source).warnings

        assert warning.startswith("10 prices are written like 1.299")
        assert 'data.decimal_mark: ","' in warning

    def test_a_placeholder_price_is_a_warning(self) -> None:
        source = jsonl(*rows(30), {"description": "A bed", "price": 999_999_999})

        (warning,) = summary(source).warnings

        assert warning.startswith("1 price is over 10,000 times the median of 25.00, up to 999,999,999.00;")

    def test_prices_in_several_currencies_are_a_warning(self) -> None:
        source = jsonl(*rows(3), *({"description": text(i), "price": p} for i, p in ((7, "$5"), (8, "€5"), (9, "$6"))))

        assert summary(source).warnings == ("prices are in several currencies ($ 2, € 1) and are not converted",)

    def test_codes_are_the_currencies_of_their_signs(self) -> None:
        source = jsonl(*({"description": text(i), "price": p} for i, p in enumerate(("€5", "6 EUR", "7"))))

        assert summary(source).warnings == ("2 prices are written in €, and data.unit is $",)
        assert summary(source, unit="€").warnings == ()
        assert summary(source, unit="kWh").warnings == ()

    def test_descriptions_that_show_their_price_are_a_warning(self) -> None:
        source = jsonl(*rows(30), {"description": "Now $77 only, a bed", "price": 77})

        (warning,) = summary(source).warnings

        assert warning.startswith("1 of 31 descriptions contain their own price;")


class TestEmptySplits:
    def test_an_empty_split_says_which_setting_to_change(self) -> None:
        config = DataConfig(source=jsonl(LAMP), val_fraction=1e-9, test_fraction=0)
        items = load_items(config)

        assert require(items, Split.TRAIN, config) == items.train
        with pytest.raises(DataError, match=r"^the val split of items.jsonl is empty$") as raised:
            require(items, Split.VAL, config)
        assert raised.value.hint == "more items, or another data.val_fraction"

    def test_a_split_that_a_rule_emptied_says_so(self) -> None:
        config = DataConfig(source=jsonl(LAMP, {**LAMP, "price": 13}), val_fraction=0, test_fraction=0, max_price=12)

        with pytest.raises(DataError) as raised:
            require(load_items(config), Split.TRAIN, config)

        assert raised.value.message == (
            "the train split of items.jsonl is empty; rows left out by rules of the config: above max_price 2"
        )

    def test_a_split_that_has_no_share_says_so(self) -> None:
        config = DataConfig(source=jsonl(LAMP), val_fraction=0, test_fraction=0)

        with pytest.raises(DataError) as raised:
            require(load_items(config), Split.VAL, config)

        assert raised.value.message == "the val split of items.jsonl is empty: data.val_fraction is 0"
