"""The types of the settings' values: what YAML gives is read and checked."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from pricer.core.predictions import ESTIMATORS

if TYPE_CHECKING:  # a type checker cannot read a Literal that is built from a table
    EstimatorName = str
else:
    EstimatorName = Literal[("auto", *ESTIMATORS)]


def _refuse_booleans(value: Any) -> Any:
    """Refuse true and false: YAML reads `yes` and `on` as true, which pydantic would read as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("not_a_number", "Input should be a number")
    return value


def _read_whole_number(value: Any) -> Any:
    """Read 1_000 and 2e4 as whole numbers: YAML reads the second as text or as a float."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else _refuse_booleans(value)


def read_off(value: Any) -> Any:
    """Read false as `off`: YAML reads `off` as false."""
    return "off" if value is False else value


Whole = Annotated[int, BeforeValidator(_read_whole_number)]
Number = Annotated[float, BeforeValidator(_refuse_booleans)]
Count = Annotated[Whole, Field(ge=1)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]
# A number that `auto` stands for is chosen in commands/parts/settling.py. A type checker sees the code after it.
if TYPE_CHECKING:
    CountOrAuto: TypeAlias = Any
    LengthOrAuto: TypeAlias = Any
    NumberOrAuto: TypeAlias = Any
else:
    CountOrAuto = Count | Literal["auto"]
    LengthOrAuto = Annotated[Whole, Field(ge=8)] | Literal["auto"]
    NumberOrAuto = Annotated[Number, Field(gt=0)] | Literal["auto"]
