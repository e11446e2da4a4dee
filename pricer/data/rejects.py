"""rejected.jsonl: every row that is not in the data set, with the reason and what was there."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pricer.data.layouts import Rejection
from pricer.data.rows import Row, SourceFile
from pricer.errors import DataError
from pricer.redaction import redact

# Maximum number of characters of a cell, and maximum number of cells of a row.
_MAX_CHARACTERS, _MAX_CELLS = 300, 50
MAX_NAMED = 10
"""Maximum number of rows that an error names one by one."""


class Rejects:
    """Writes the rows that are left out, and counts them by reason. Close it at the end."""

    def __init__(self, path: Path, files: tuple[SourceFile, ...]) -> None:
        self.rejected: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.named: list[str] = []
        self._files = files
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")

    def reject(self, row: Row, rejection: Rejection) -> None:
        """Leave out a row that cannot be used."""
        self.rejected[rejection.reason] += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(f"{redact(rejection.problem)} ({self._files[row.file].place(row.line)})")
        self._write(rejection.reason, row.file, row.line, {"": row.raw} if row.problem else row.values)

    def drop(self, reason: str, file: int, line: int, values: Mapping[str, Any]) -> None:
        """Leave out a row because of a rule of the config."""
        self.dropped[reason] += 1
        self._write(reason, file, line, values)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def refuse(self, rows: int, max_rejected: float, *, is_strict: bool, hint: str = "") -> None:
        """Raise a DataError if more than the share `max_rejected` of the rows was rejected; with `is_strict`, if any
        was. The error names the first rows.
        """
        count = self.rejected.total()
        if not count or (not is_strict and count <= max_rejected * rows):
            return
        more = [f"and {count - len(self.named):,} more rows like these"] if count > len(self.named) else []
        if is_strict:
            raise DataError("\n".join([*self.named, *more]), hint or "mend these rows, or data.on_bad_row: reject")
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in self.rejected.most_common())
        raise DataError(
            "\n".join([*self.named, *more, f"{count:,} of {rows:,} rows cannot be used: {reasons}"]),
            hint or f"mend these rows, or set data.max_rejected, which is {max_rejected:g}",
        )

    def _write(self, reason: str, file: int, line: int, values: Mapping[str, Any]) -> None:
        cells = {shorten(str(name)): shorten(cell) for name, cell in list(values.items())[:_MAX_CELLS]}
        record = {"reason": reason, "file": self._files[file].name, "line": line, "row": cells}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")


def shorten(cell: Any) -> Any:
    """A cell as it is written: short, of a type that JSON knows, without tokens."""
    if cell is None or isinstance(cell, bool):
        return cell
    if isinstance(cell, int | float) and -1e15 < cell < 1e15:
        return cell
    try:
        text = cell if isinstance(cell, str) else str(cell)
    except ValueError:  # Python does not write whole numbers of more than 4,300 digits
        return "a number of thousands of digits"
    # A token at the cut would be cut in two, and no longer look like one.
    text = redact(text[: 2 * _MAX_CHARACTERS])
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
