"""Columns, ready-made prompts and chats."""

from collections.abc import Mapping
from typing import Any

import pytest

from pricer.config import DataConfig
from pricer.data.layouts import NOT_A_PROMPT, OTHER_PROMPT, Cells, Layout, Rejection, find_layout
from pricer.errors import DataError

QUESTION = "How much does this cost?"


def prompt(description: str, end: str = "Price is $", question: str = QUESTION) -> str:
    return f"{question}\n\n{description}\n\n{end}"


def chat(asked: str, reply: str) -> dict[str, Any]:
    said = [("system", "You price goods."), ("user", asked), ("assistant", reply)]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def layout(*rows: Mapping[str, Any], **settings: Any) -> Layout:
    return find_layout(DataConfig(**settings), tuple(rows[0]), rows, "items.jsonl")


def test_columns_are_read_by_their_names() -> None:
    row = {"text": "A lamp", "usd": "5", "name": "Lamp", "kind": None}
    found = layout(row, description="text", price="usd", title="name", category="kind")

    assert (found.name, found.question, found.lead) == ("columns", None, None)
    assert found.read(row) == Cells("A lamp", "5", "Lamp", None)


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError) as raised:
        layout({"text": "A lamp", "price": 5}, title="name")

    assert raised.value.message == "items.jsonl has no column description; it has text, price"


class TestPrompts:
    def test_the_description_is_taken_out_and_the_price_left_behind(self) -> None:
        rows = [{"description": prompt("A lamp\n\nof brass", "Price is $227.00"), "price": 226.6}]

        found = layout(*rows, layout="prompts")

        assert (found.name, found.question, found.lead) == ("prompts", QUESTION, "Price is $")
        assert found.read(rows[0]) == Cells("A lamp\n\nof brass", 226.6)

    def test_prompts_with_and_without_the_price_have_the_same_lead(self) -> None:
        rows = [{"text": prompt("A lamp", f"Price is ${n}.00"), "price": n} for n in range(1, 9)]
        rows.append({"text": prompt("A bed", "Price is $"), "price": 300})

        found = layout(*rows)

        assert found.name == "prompts"
        assert found.read(rows[-1]) == Cells("A bed", 300)

    @pytest.mark.parametrize(
        ("asked", "reply"),
        [
            (prompt("A lamp"), "227.00"),
            (prompt("A lamp"), " $227.00"),
            (f"{QUESTION}\n\nA lamp", "Price is $227.00"),
            (prompt("A lamp"), "Price is $227.00"),
        ],
    )
    def test_a_completion_is_the_price_with_or_without_the_lead(self, asked: str, reply: str) -> None:
        found = layout({"prompt": asked, "completion": reply})

        cells = found.read({"prompt": asked, "completion": reply})

        assert (found.question, found.lead) == (QUESTION, "Price is $")
        assert isinstance(cells, Cells)
        assert (cells.description, cells.price.strip(" $")) == ("A lamp", "227.00")

    def test_a_lead_without_a_currency_sign_is_followed_by_a_space(self) -> None:
        assert layout({"prompt": prompt("A lamp", "Price:"), "completion": " 5"}).lead == "Price: "

    def test_a_row_with_another_question_or_lead_is_rejected(self) -> None:
        good = [{"text": prompt("A lamp"), "price": 5}] * 9
        found = layout(*good)

        for text in (prompt("A lamp", question="What is it?"), prompt("A lamp", "Cost: $")):
            rejected = found.read({"text": text, "price": 5})
            assert isinstance(rejected, Rejection)
            assert rejected.reason == OTHER_PROMPT

    @pytest.mark.parametrize("text", ["A lamp", "A lamp\n\nof brass", f"{QUESTION}\n\nPrice is $3", None, 5, ""])
    def test_a_row_that_is_no_prompt_is_rejected(self, text: Any) -> None:
        found = layout({"text": prompt("A lamp"), "price": 5}, layout="prompts")

        rejected = found.read({"text": text, "price": 5})

        assert isinstance(rejected, Rejection)
        assert rejected.reason == NOT_A_PROMPT

    def test_a_source_without_prompts_is_refused_where_prompts_are_asked_for(self) -> None:
        with pytest.raises(DataError, match=r"^no row at the beginning of items.jsonl is a prompt"):
            layout({"description": "A lamp", "price": 5}, layout="prompts")


class TestDetection:
    def test_descriptions_that_are_prompts_are_seen(self) -> None:
        rows = [{"description": prompt(f"lamp {n}", f"Price is ${n}.00"), "price": n + 0.3} for n in range(1, 9)]

        assert layout(*rows).name == "prompts"
        assert layout(*rows, layout="columns").name == "columns"

    @pytest.mark.parametrize(
        "text",
        [
            "A lamp",
            "About this item\n\n{n} lamps\n\nFree shipping",  # the same beginning and end, but not about a price
            "About this item\n\n{n} lamps\n\nValue of its kind: 7",  # a number that is not the price
            "Lamp {n}\n\nof brass\n\nPrice is ${n}",  # no common question
        ],
    )
    def test_other_descriptions_are_descriptions(self, text: str) -> None:
        rows = [{"description": text.format(n=n), "price": n} for n in range(1, 20)]

        assert layout(*rows).name == "columns"

    def test_a_few_rows_say_nothing(self) -> None:
        assert layout({"description": prompt("A lamp", "Price is $3"), "price": 3}).name == "columns"


class TestChats:
    def test_the_last_answer_is_the_price(self) -> None:
        row = chat(f"{QUESTION}\n\nA lamp", "Price is $131.5")
        found = layout(row)

        assert (found.name, found.question, found.lead) == ("messages", QUESTION, "Price is $")
        assert found.read(row) == Cells("A lamp", "131.5")

    def test_an_answer_may_be_a_bare_number(self) -> None:
        rows = [chat(f"lamp {n}\n\nof brass", f"${n}") for n in range(9)]
        found = layout(*rows)

        assert (found.question, found.lead) == (None, None)
        assert found.read(rows[3]) == Cells("lamp 3\n\nof brass", "$3")

    @pytest.mark.parametrize(
        "row",
        [
            {"messages": "hello"},
            {"messages": [{"role": "user", "content": "A lamp"}]},
            {"messages": [{"role": "user", "content": "A lamp"}, {"role": "assistant", "content": None}]},
            {"messages": [3]},
            {"messages": []},
            {},
        ],
    )
    def test_a_row_that_is_no_chat_is_rejected(self, row: Any) -> None:
        rejected = layout(chat(f"{QUESTION}\n\nA lamp", "Price is $5")).read(row)

        assert isinstance(rejected, Rejection)
        assert rejected.reason == NOT_A_PROMPT
