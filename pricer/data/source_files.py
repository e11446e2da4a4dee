"""Which files a source stands for, of what kind they are, and which split their names give them."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pricer.core.items import Split, name_split
from pricer.data.rows import SourceFile, shorten
from pricer.data.text_files import CODECS
from pricer.errors import DataError

ASSETS = Path(__file__).parent.parent / "assets"
KINDS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}
FORMATS = ".csv, .tsv, .jsonl, .json or .parquet"


def find_files(source: str) -> tuple[SourceFile, ...] | None:
    """The local files that a source names: an embedded data set, a file, a folder or a pattern. None if it can only be
    a Hub data set. The files of a folder or a pattern get the split that their names say.
    """
    try:
        return _find_files(source)
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder that may not be read, an unknown ~user
        raise DataError(f"{shorten(source, 100)} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _find_files(source: str) -> tuple[SourceFile, ...] | None:
    if source.startswith("builtin:"):
        path = ASSETS / f"{source.removeprefix('builtin:')}.jsonl"
        if not path.is_file() or path.parent != ASSETS:
            raise DataError(f"there is no embedded data set {source}", "data.source: builtin:computers")
        return (source_file(path, source),)
    path = Path(source).expanduser()
    if path.is_file():
        if file_kind(path.name) is None:
            raise DataError(f"{path} is not a {FORMATS} file", "save it as .csv; .gz or .zst may follow")
        return (source_file(path, str(path)),)
    if path.is_dir():
        return _folder_files(path)
    if glob.has_magic(source):
        found = sorted(Path(each) for each in glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute patterns
        # A link to a folder above it leads to the same files again and again.
        unique = {(each.resolve(), each.name): each for each in reversed(found) if file_kind(each.name)}
        files = _require_files(reversed(unique.values()))
        if not files:
            raise DataError(f"no {FORMATS} file matches {source}", "a pattern in quotes, for example 'items/*.csv'")
        return _with_splits(files)
    if path.exists():
        raise DataError(f"{path} is neither a file nor a folder")
    if file_kind(path.name) or not is_hub_name(source):
        raise DataError(
            f"there is no file or folder {path}",
            "data.source is relative to the folder you start pricer in; a Hub data set is USER/NAME",
        )
    return None


def file_kind(name: str) -> str | None:
    """`csv`, `json` or `parquet` by the end of a file's name, or None. A .gz or .zst after it does not matter."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    is_packed = bool(suffixes) and suffixes[-1] in CODECS
    kind = KINDS.get(suffixes[-1 - is_packed]) if len(suffixes) > is_packed else None
    return None if kind == "parquet" and is_packed else kind


def is_hub_name(source: str) -> bool:
    """Whether a source can be the name of a Hub data set."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", source) is not None


def require_one_kind(source: str, files: Sequence[SourceFile]) -> str:
    """The kind of all files. A DataError if they differ."""
    kinds = {file_kind(file.name) or "": file for file in files}
    if len(kinds) > 1:
        names = " and ".join(file.name for file in list(kinds.values())[:2])
        raise DataError(f"{source} has files of several kinds: {names}", f"a pattern: {source.rstrip('/')}/*.csv")
    return next(iter(kinds))


def _folder_files(folder: Path) -> tuple[SourceFile, ...]:
    names = sorted(path for path in folder.iterdir() if file_kind(path.name) and not path.name.startswith("."))
    if files := _require_files(names):
        return _with_splits(files)
    below = next((path for path in sorted(folder.glob("*/*")) if file_kind(path.name)), None)
    hint = f"data.source: '{folder}/*/*{below.suffix}'" if below else "name the file inside it"
    raise DataError(f"{folder} holds no {FORMATS} file", hint)


def _require_files(paths: Iterable[Path]) -> list[Path]:
    """The paths. A DataError if one is no file: its rows would be missing, and nobody would notice."""
    found = list(paths)
    if other := next((path for path in found if not path.is_file()), None):
        raise DataError(
            f"{shorten(str(other))} is a folder, a broken link or a device, not a file", "rename or remove it"
        )
    return found


def source_file(path: Path, name: str, split: Split | None = None) -> SourceFile:
    """A SourceFile whose rows are counted as its kind needs it."""
    return SourceFile(path, name, split, "row" if file_kind(name) == "parquet" else "line")


def _with_splits(paths: Sequence[Path]) -> tuple[SourceFile, ...]:
    """The files with the splits that their names say, or else the names of their folders, if there are several."""
    are_apart = len({path.parent for path in paths}) > 1
    splits = [name_split(path.name) or (name_split(path.parent.name) if are_apart else None) for path in paths]
    return tuple(source_file(path, str(path), split) for path, split in zip(paths, splits, strict=True))
