"""Prices as people write them: from `$1,299.00` or `1.299,00 €` to a number, or the reason why it is none."""

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

NO_PRICE = "no price"
NOT_A_NUMBER = "price is not a number"
RANGE = "price is a range"
NOT_ABOVE_ZERO = "price not above zero"

# What programs and people write where there is no price.
_MISSING = {"", "-", "–", "—", "?", "#n/a", "<na>", "n/a", "na", "nan", "none", "null"}

_CODES = (
    r"AED|ARS|AUD|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|"
    r"MXN|MYR|NGN|NOK|NZD|PHP|PKR|PLN|RMB|RON|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR"
)
_CURRENCY = "|".join(
    [
        *(r"(?:US|CA|AU|NZ|HK|SG|NT|MX|A|C|R|S)?\$", "[£¥֏؋৳฿₡₦₩₪₫€₭₮₱₲₴₵₸₹₺₼₽₾₿]"),
        _CODES,
        *(r"Rs\.?", r"kr\.?", "zł", "Kč", "Ft", "lei", "TL", "euros?", "dollars?"),
    ]
)
_OPEN = "from|ab|starting at|starting from|as low as|up to|under|over|at least|bis|<|>|≤|≥"
_TO = r"-|–|—|−|~|/|\.\.+|…|to|bis|à|and|or"
_SIMPLE = re.compile(r"[0-9]+(?:\.[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class Price:
    """A price above zero. `currency` is the sign or code beside the number, empty if there is none. `is_ambiguous`: the
    decimal mark could be a grouping mark, as in `1.299`.
    """

    value: float
    currency: str = ""
    is_ambiguous: bool = False


def read_price(value: Any, decimal_mark: str = ".", unit: str = "") -> Price | str:
    """The price that a cell holds, or the reason why it holds none. `unit` may stand beside a number, like a currency
    sign.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NO_PRICE
    if isinstance(value, str):
        return _read_text(value, decimal_mark, unit)
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    return NOT_A_NUMBER if number is None else _above_zero(number)


def _read_text(text: str, decimal_mark: str, unit: str) -> Price | str:
    text = text.strip()
    if decimal_mark == "." and _SIMPLE.fullmatch(text):
        return _above_zero(float(text))
    # A cell is as long as its file allows. No price is longer than this.
    if len(text) > 100:
        return NOT_A_NUMBER
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if text.casefold() in _MISSING:
        return NO_PRICE
    one, several = _patterns(decimal_mark, unit)
    found = one.fullmatch(text)
    if not found:
        return RANGE if several.fullmatch(text) else NOT_A_NUMBER
    number = found["number"]
    whole, _, decimals = number.partition(decimal_mark)
    value = float(f"{re.sub('[^0-9]', '', whole) or 0}.{decimals or 0}")
    if found["exponent"]:
        value *= float(f"1{found['exponent']}")
    is_negative = found["minus"] or found["minus_after"] or found["open"]
    price = _above_zero(-value if is_negative else value)
    if isinstance(price, str):
        return price
    is_ambiguous = len(decimals) == 3 and whole.isdigit() and whole != "0" and len(whole) <= 3
    return Price(value, found["before"] or found["after"] or "", is_ambiguous)


def _above_zero(number: float) -> Price | str:
    if not math.isfinite(number):
        return NOT_A_NUMBER
    return Price(number) if number > 0 else NOT_ABOVE_ZERO


@cache
def _patterns(decimal_mark: str, unit: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern of one price, and the pattern of a range of prices."""
    group = ",'’ " if decimal_mark == "." else ".'’ "
    mark = re.escape(decimal_mark)
    # Groups of three digits. In India all groups but the last have two.
    grouped = rf"[0-9]{{1,3}}(?P<group>[{group}])(?:[0-9]{{2,3}}(?P=group))*[0-9]{{3}}"
    number = rf"(?:{grouped}|[0-9]+)(?:{mark}[0-9]*)?|{mark}[0-9]+"
    currency = f"{_CURRENCY}|{re.escape(unit)}" if unit else _CURRENCY
    one = re.compile(
        rf"(?P<open>\()?(?P<minus>[-−–])? ?(?:(?P<before>{currency}) ?)?(?P<minus_after>[-−–])?"
        rf"(?P<number>{number})(?P<exponent>e[+-]?[0-9]{{1,3}})?(?:[.,][-–—]{{1,2}})?"
        rf" ?(?P<after>{currency})?(?(open)\))",
        re.IGNORECASE,
    )
    plain = rf"(?:(?:{currency}) ?)?(?:[0-9][0-9.,'’]*) ?(?:{currency})?"
    several = re.compile(
        rf"(?:between )?{plain} ?(?:{_TO}) ?{plain}|(?:{_OPEN}) ?{plain}|{plain} ?(?:\+|and up|or more)", re.IGNORECASE
    )
    return one, several
