"""The tokens of the training items: made once for each data folder, tokenizer and prompt, and then read from disk."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pricer.commands.parts.setup import Setup
from pricer.data.acceptance import Progress
from pricer.errors import DataError
from pricer.ml.token_table import TokenTable, open_table, write_table
from pricer.ml.tokens import TokenizedExample, fingerprint_tokenizer
from pricer.stores.files import locked, new_folder, read_json, sha256_of, write_json

# Changes when this code makes other tokens from the same items.
_VERSION = 1
# Number of items that are Python objects at the same time.
_ITEMS_AT_ONCE = 10_000
_TABLE, _RECORD = "tokens.arrow", "tokens.json"


def tokenize_training(setup: Setup, progress: Progress) -> TokenTable:
    """The training examples of a setup as tokens, mapped into memory.

    They are kept in the data folder, in `tokens-<key>`, and made again if they are damaged or missing. Without a data
    folder they are made for this call alone. A DataError if the folder cannot be written.
    """
    folder, count = setup.items.folder, len(setup.items.train)
    try:
        if folder is None:
            with tempfile.TemporaryDirectory() as scratch:
                _write(Path(scratch), setup, progress)
                return open_table(Path(scratch) / _TABLE)  # a mapped file lives on after its name is removed
        target = folder / f"tokens-{_key(setup)}"
        with locked(folder):  # a second process waits for the tokens of the first
            table = _read(target, count, len(setup.tokenizer))
            if table is None:
                _delete_leftovers(folder)
                with new_folder(target) as fresh:
                    _write(fresh, setup, progress)
                table = _read(target, count, len(setup.tokenizer))
    except OSError as error:
        raise DataError(
            f"the tokens of the training items cannot be written: {error.strerror or error}", "make room on the disk"
        ) from None
    if table is None:
        raise DataError(f"{target} is damaged right after it was written", "check the disk")
    return table


def _key(setup: Setup) -> str:
    """A hash of everything that decides the tokens."""
    facts = [
        _VERSION,
        fingerprint_tokenizer(setup.tokenizer),
        setup.template.fingerprint,
        setup.encoder.answer_tokens,
        setup.items.fingerprint,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _write(folder: Path, setup: Setup, progress: Progress) -> None:
    count = len(setup.items.train)
    write_table(folder / _TABLE, _batches(setup, progress))
    write_json(folder / _RECORD, {"rows": count, "sha256": sha256_of(folder / _TABLE)})


def _batches(setup: Setup, progress: Progress) -> Iterator[Sequence[TokenizedExample]]:
    train = setup.items.train
    for start in range(0, len(train), _ITEMS_AT_ONCE):
        progress("tokenizing", f"{start:,} of {len(train):,} training items")
        items = train[start : start + _ITEMS_AT_ONCE]
        yield setup.encoder.examples([setup.template.example(item) for item in items])


def _read(target: Path, count: int, vocabulary: int) -> TokenTable | None:
    """The tokens in a folder; None if they are missing, not what was written, or not for a vocabulary of this size."""
    with suppress(OSError, ValueError, KeyError):
        if read_json(target / _RECORD) == {"rows": count, "sha256": sha256_of(target / _TABLE)}:
            table = open_table(target / _TABLE)
            if len(table) == count and table.is_sound(vocabulary):
                del table  # the check has brought every page of it into memory
                return open_table(target / _TABLE)
    return None


def _delete_leftovers(folder: Path) -> None:
    """Delete what killed processes left. No other process writes tokens while the folder is locked."""
    for path in folder.glob(".tokens-*"):
        shutil.rmtree(path, ignore_errors=True)
