"""Where Items come from, and what they are called."""

from pathlib import Path

import pytest

from pricer.config import DataConfig
from pricer.core.items import Item, Split
from pricer.data.reading import item_id, load_items, require
from pricer.data.sources import local_path
from pricer.errors import DataError
from tests.builders import an_item
from tests.stores.item_files import LAMP, csv, error, jsonl, load, parquet, prices


class TestGoodFiles:
    def test_the_three_kinds_of_file_hold_the_same_items(self) -> None:
        sources = [
            jsonl({"description": "A lamp", "price": 12.5}, {"description": "A bed", "price": 300}),
            csv("A lamp,12.5", "A bed,300"),
            parquet(["A lamp", "A bed"], [12.5, 300.0]),
        ]

        sets = [load_items(DataConfig(source=source)) for source in sources]

        assert prices(sources[0]) == {"A lamp": 12.5, "A bed": 300.0}
        assert sets[0] == sets[1] == sets[2]

    def test_columns_go_by_the_names_in_the_config(self) -> None:
        source = jsonl({"text": "Of brass", "usd": 3, "name": "Lamp", "kind": None, "price": "not used"})

        item = load(source, description="text", price="usd", title="name", category="kind")["Of brass"]

        assert item == Item(item_id(item), "Of brass", 3.0, "Lamp", None)

    def test_an_empty_title_is_none(self) -> None:
        Path("items.csv").write_text("description,price,title\nA lamp,3,\n")

        assert load("items.csv", title="title")["A lamp"].title is None

    @pytest.mark.parametrize("description", ["NA", "None", "null", "nan", "12345", "True", "007"])
    def test_a_csv_description_that_looks_like_something_else_is_kept(self, description: str) -> None:
        assert prices(csv(f"{description},3")) == {description: 3.0}

    def test_a_csv_that_a_spreadsheet_wrote_is_read(self) -> None:
        Path("items.csv").write_bytes(b'\xef\xbb\xbf,description,price\r\n0,"A ""lamp"", caf\xc3\xa9",3\r\n')

        assert prices("items.csv") == {'A "lamp", café': 3.0}

    def test_numbers_that_are_written_as_text_are_numbers(self) -> None:
        assert prices(jsonl({"description": "A lamp", "price": "12.50"})) == {"A lamp": 12.5}

    def test_the_first_price_with_cents_may_come_late_in_a_jsonl(self) -> None:
        # Left to itself, the loader takes a column's type from the first 10 MB: 22 rows of half a megabyte are 11.
        rows = [{"description": f"{i}" + "x" * 500_000, "price": 3} for i in range(22)]

        assert prices(jsonl(*rows, {"description": "last", "price": 3.5}))["last"] == 3.5

    def test_the_first_price_with_cents_may_come_late_in_a_csv(self) -> None:
        # Left to itself, the loader takes a column's type from the first 10,000 rows.
        rows = 10_001

        found = prices(csv(*(f"item {i},3" for i in range(rows)), "last,3.5"))

        assert (len(found), found["last"]) == (rows + 1, 3.5)

    def test_a_file_with_glob_characters_in_its_name_is_read(self) -> None:
        Path(jsonl(LAMP)).rename("items[1]*.jsonl")

        assert prices("items[1]*.jsonl") == {"A lamp": 12.5}

    def test_a_description_that_contains_the_lead_is_kept_whole(self) -> None:
        text = "Price is $5 off.\n\nA lamp\n\nPrice is $"

        assert list(load(jsonl({"description": text, "price": 3}))) == [text]

    def test_the_embedded_data_is_read(self) -> None:
        items = load_items(DataConfig())

        assert len(items.train) + len(items.val) + len(items.test) == 6259

    def test_a_file_in_the_home_folder_is_found(self, home: Path) -> None:
        Path(jsonl(LAMP)).rename(home / "items.jsonl")

        assert prices("~/items.jsonl") == {"A lamp": 12.5}


class TestUnwrapping:
    def unwrapped(self, text: str) -> list[str]:
        return list(load(jsonl({"description": text, "price": 3}), unwrap=True))

    def test_the_description_is_taken_out_of_a_notebook_prompt_and_the_price_left_behind(self) -> None:
        assert self.unwrapped("How much?\n\nA lamp\nof brass\n\nPrice is $227.00") == ["A lamp\nof brass"]
        assert self.unwrapped("How much?\n\nA lamp\n\nPrice is $") == ["A lamp"]

    def test_a_lead_within_the_description_does_not_end_it(self) -> None:
        assert self.unwrapped("How much?\n\nPrice is $5 off.\n\nA lamp\n\nPrice is $227.00") == [
            "Price is $5 off.\n\nA lamp"
        ]

    @pytest.mark.parametrize(
        "text", ["A lamp", "A lamp\n\nof brass", "How much?\n\nPrice is $3", "Price is $3\n\nA lamp"]
    )
    def test_a_row_that_is_no_prompt_is_refused(self, text: str) -> None:
        assert error(jsonl({"description": text, "price": 3}), unwrap=True).message == (
            "description is not a prompt with a question, a description and `Price is $` (items.jsonl, line 1)"
        )


class TestSources:
    def test_a_missing_file_is_named(self) -> None:
        assert error("nowhere.csv").message == "there is no file nowhere.csv"

    def test_an_unknown_kind_of_file_is_refused(self) -> None:
        Path("items.xlsx").touch()

        assert error("items.xlsx").message == "items.xlsx is not a .csv, .jsonl or .parquet file"

    @pytest.mark.parametrize(
        "name", ["builtin:nothing", "builtin:", "builtin:../assets/computers", "builtin:/computers"]
    )
    def test_an_unknown_embedded_data_set_is_refused(self, name: str) -> None:
        found = error(name)

        assert (found.message, found.hint) == (
            f"there is no embedded data set {name}",
            "data.source: builtin:computers",
        )

    def test_a_name_that_is_no_file_is_a_hub_data_set(self) -> None:
        assert local_path(DataConfig(source="user/name")) is None
        assert error("user/name").message.startswith("the data set user/name cannot be loaded: ")

    def test_an_empty_split_says_which_setting_to_change(self) -> None:
        config = DataConfig(source=jsonl(LAMP), val_fraction=1e-9, test_fraction=0)
        items = load_items(config)

        assert require(items, Split.TRAIN, config) == items.train
        with pytest.raises(DataError, match=r"^the val split of items.jsonl is empty$") as raised:
            require(items, Split.VAL, config)
        assert raised.value.hint == "more items, or another data.val_fraction"

    def test_a_split_that_a_maximum_price_emptied_says_so(self) -> None:
        for lamps, cost in (([LAMP], "1 item costs"), ([LAMP, LAMP], "2 items cost")):
            config = DataConfig(source=jsonl(*lamps), val_fraction=0, test_fraction=0, max_price=12)

            with pytest.raises(DataError) as raised:
                require(load_items(config), Split.TRAIN, config)

            assert raised.value.message == (f"the train split of items.jsonl is empty: {cost} more than data.max_price")
            assert raised.value.hint == "a higher data.max_price, or more items below it"

    def test_a_split_that_has_no_share_is_not_empty_for_its_prices(self) -> None:
        config = DataConfig(source=jsonl(LAMP, LAMP), val_fraction=0, test_fraction=0, max_price=12)

        with pytest.raises(DataError) as raised:
            require(load_items(config), Split.VAL, config)

        assert raised.value.message == "the val split of items.jsonl is empty: data.val_fraction is 0"
        assert raised.value.hint == "a data.val_fraction above 0"


class TestCache:
    def test_a_cache_that_cannot_be_written_is_named_and_not_the_data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("file").write_text("", encoding="utf-8")
        cache = Path.cwd() / "file" / "datasets"
        monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)

        with pytest.raises(DataError) as raised:
            load_items(DataConfig(source=jsonl(LAMP)))

        assert raised.value.message == f"{cache}, which all data is read through, cannot be written: Not a directory"
        assert raised.value.hint == "set HF_DATASETS_CACHE to a folder that can be written, and has room"

    def test_a_disk_that_is_full_is_not_the_datas_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise RuntimeError("An error occurred") from OSError(28, "No space left on device")

        monkeypatch.setattr("datasets.load_dataset", full)

        with pytest.raises(DataError, match=r"/datasets, which .* cannot be written: No space left on device$"):
            load_items(DataConfig(source=jsonl(LAMP)))


class TestIds:
    ROWS = tuple({"description": f"lamp number {i}", "price": 1 + i} for i in range(40))

    def test_ids_and_splits_stay_when_rows_are_added_and_moved(self) -> None:
        before = load_items(DataConfig(source=jsonl(*self.ROWS)))
        after = load_items(DataConfig(source=jsonl(LAMP, *reversed(self.ROWS), LAMP)))

        for part in Split:
            assert set(before.items(part)) <= set(after.items(part))

    def test_copies_get_an_id_each_and_share_a_split(self) -> None:
        copies = [LAMP, LAMP, {**LAMP, "price": 13}]

        items = load_items(DataConfig(source=jsonl(*copies)))

        whole = max((items.train, items.val, items.test), key=len)
        key = item_id(an_item(description="A lamp"))
        assert [(item.id, item.price) for item in whole] == [(key, 12.5), (f"{key}-2", 12.5), (f"{key}-3", 13.0)]

    def test_ids_stay_when_a_copy_is_too_dear(self) -> None:
        rows = [{**LAMP, "price": 900}, LAMP]

        (item,) = load(jsonl(*rows), max_price=100).values()

        assert (item.id, item.price) == (f"{item_id(item)}-2", 12.5)

    def test_a_limit_is_a_sample_that_stays(self) -> None:
        few, more = (
            load_items(DataConfig(source=jsonl(*rows), train_limit=limit))
            for rows, limit in ((self.ROWS, 5), (self.ROWS[::-1], 8))
        )

        assert len(few.train) == 5
        assert few.train == more.train[:5]
        assert few.fingerprint != more.fingerprint
