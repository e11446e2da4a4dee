"""Ready-made prompts and chats: the question, the description, the lead and the price that they are made of."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pricer.data.numbers import Price, read_price

# The number at the end of a text, with a currency sign or code after it.
_NUMBER_AT_END = re.compile(r"(?<![0-9.,'’])[0-9][0-9.,'’]*(?:\s?[^\s\w.,]|\s[A-Za-z]{1,4})?\s*$")
_ABOUT_PRICE = re.compile(r"[$€£¥:=]$|\b(?:price|cost|costs|worth|value)\b", re.IGNORECASE)
# Minimum number of rows, and minimum share of the rows, that must look like prompts to be taken for prompts.
_MIN_ROWS, _MIN_SHARE = 5, 0.9


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a prompt. `number` is the text of the price after the lead, empty if there is none. The `lead` has
    no space at its end.
    """

    question: str
    description: str
    lead: str
    number: str

    def without_question(self) -> "Parts":
        """The parts of a prompt that begins with its description."""
        whole = f"{self.question}\n\n{self.description}" if self.question else self.description
        return replace(self, question="", description=whole)


Splitter = Callable[[Mapping[str, Any]], Parts | None]


def split_prompt(row: Mapping[str, Any], column: str, answer: str | None) -> Parts | None:
    """The parts of the prompt in a column, whose price may stand in the column `answer`; None if it is no prompt."""
    text, reply = row.get(column), row.get(answer) if answer else None
    return _split(text, "" if reply is None else str(reply)) if isinstance(text, str) else None


def split_chat(row: Mapping[str, Any]) -> Parts | None:
    """The parts of the last question and answer in `messages`; None if it is no chat about a price."""
    messages = row.get("messages")
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        return None
    said = [(message.get("role"), message.get("content")) for message in messages[-2:]]
    if [role for role, _ in said] != ["user", "assistant"]:
        return None
    asked, reply = said[0][1], said[1][1]
    if not isinstance(asked, str) or not isinstance(reply, str):
        return None
    found = _split(asked, reply)
    if found is None or not _ABOUT_PRICE.search(found.lead):
        # The whole question is the description.
        question, _, rest = asked.strip().partition("\n\n")
        found = Parts(question if rest else "", rest.strip() or question, "", reply.strip())
    return found if found.description else None


def find_frame(parts: Sequence[Parts | None]) -> tuple[str, str] | None:
    """The question and the lead of most prompts. The question is empty if the prompts have no common question. None if
    there is no prompt.
    """
    found = [part for part in parts if part]
    if not found:
        return None
    question, n = Counter(part.question for part in found).most_common(1)[0]
    lead = Counter(part.lead for part in found).most_common(1)[0][0]
    return (question if 2 * n > len(found) or len(found) == 1 else ""), lead


def look_like_prompts(rows: Sequence[Mapping[str, Any]], split: Splitter, price: str) -> bool:
    """Whether most rows are prompts with one question, one lead about a price, and after it no other number than the
    price in the column `price`.
    """
    parts = [split(row) for row in rows]
    frame = find_frame(parts)
    if len(rows) < _MIN_ROWS or frame is None or not frame[0] or not _ABOUT_PRICE.search(frame[1]):
        return False
    fitting = [
        (row, part) for row, part in zip(rows, parts, strict=True) if part and (part.question, part.lead) == frame
    ]
    pairs = [(read_price(row[price]), read_price(part.number)) for row, part in fitting if part.number and price in row]
    same = sum(isinstance(a, Price) and isinstance(b, Price) and abs(a.value - b.value) <= 0.51 for a, b in pairs)
    return len(fitting) >= _MIN_SHARE * len(rows) and same >= _MIN_SHARE * len(pairs)


def _split(text: str, reply: str) -> Parts | None:
    """The parts of a prompt. A reply may begin with the lead: `Price is $227`. Then the prompt may have no lead."""
    question, blank, rest = text.strip().partition("\n\n")
    question, rest = question.strip(), rest.strip()
    lead = _NUMBER_AT_END.sub("", reply).strip()
    if any(letter.isalpha() for letter in lead):
        number = reply.strip()[len(lead) :]
        description = rest if blank else question
        question = question if blank else ""
        description = description.removesuffix(lead) if description.endswith("\n\n" + lead) else description
    else:
        description, blank, end = rest.rpartition("\n\n")
        lead = _NUMBER_AT_END.sub("", end).strip()
        number = end[len(lead) :].strip() or reply
        if not blank or not lead:
            return None
    description = description.strip()
    return Parts(question, description, lead, number.strip().rstrip(".")) if description else None
