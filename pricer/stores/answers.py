"""What files of answers and of failures hold, and the check of such files from elsewhere."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from pricer.core.checkpoints import Failure
from pricer.core.evaluation import EvalSpec
from pricer.core.predictions import Prediction
from pricer.stores.files import format_json
from pricer.stores.records import parse_record

# Limits for numbers in answers from elsewhere. The highest price can still be squared and summed. Shares are sums of
# rounded numbers.
_HIGHEST_PRICE, _ROUNDING = 1e100, 1e-6
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file of predictions."""

    batch: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class Failures:
    """What failures.json holds."""

    failures: tuple[Failure, ...]


def check_answers(content: bytes, items: Collection[str]) -> bytes:
    """The whole lines of a file of predictions that comes from elsewhere. A ValueError of one line if it cannot be
    read, answers an item whose id is not among `items`, or has a number that cannot be one.
    """
    whole = content[: content.rfind(b"\n") + 1]
    for number, batch in enumerate(parse_lines(whole), start=1):
        for one in batch:
            problem = _find_impossible(one)
            if one.item_id not in items:
                problem = f"there is no item {ascii(one.item_id)[:60]} in this evaluation"
            if problem:
                raise ValueError(f"line {number}: {problem}")
    return whole


def format_failures(failures: Sequence[Failure]) -> bytes:
    """Failures as a JSON text."""
    return format_json(asdict(Failures(tuple(failures)))).encode()


def check_failures(content: bytes, spec: EvalSpec, ids: Collection[str]) -> list[Failure]:
    """The failures in a JSON text from elsewhere: those of checkpoints with these ids, on any base or on the spec's. A
    ValueError of one line if it cannot be read.
    """
    found = [one for one in parse_record(Failures, content).failures if one.id in ids]
    return [
        replace(one, reason=" ".join(one.reason.split())[:_LONGEST_REASON])
        for one in found
        if one.base_revision in (None, spec.base_revision)
    ]


def parse_lines(content: bytes) -> Iterator[tuple[Prediction, ...]]:
    """The batches in whole lines of a file of predictions. A ValueError names the line that cannot be read."""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            yield parse_record(Line, line).batch
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None


def _find_impossible(one: Prediction) -> str | None:
    """What is wrong with the numbers of an answer from elsewhere; None if nothing is."""
    prices, shares = {"price": one.price or 0.0}, dict[str, float]()
    if answer := one.distribution:
        prices |= {f"quantiles.{index}": price for index, price in enumerate(answer.quantiles)}
        prices |= {"mode": answer.mode, "mean": answer.mean, "mean_error": answer.mean_error}
        shares = {"no_price": answer.no_price, "residual_mass": answer.residual_mass}
        if sorted(answer.quantiles) != list(answer.quantiles):
            return "the quantiles do not ascend"
    for name, value in prices.items():
        if not 0 <= value <= _HIGHEST_PRICE:
            return f"{name} is {value}, not between 0 and {_HIGHEST_PRICE:g}"
    for name, value in shares.items():
        if not -_ROUNDING <= value <= 1 + _ROUNDING:
            return f"{name} is {value}, not between 0 and 1"
    return None
