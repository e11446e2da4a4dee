"""Answers of shards in a Hub repository: the files of a run's evaluations, under the same names, on a branch."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pricer.core.cells import Shard, parse_shard
from pricer.core.checkpoints import Failure
from pricer.core.evaluation import EvalSpec
from pricer.errors import HubError, RunError
from pricer.stores.answers import check_answers, check_failures
from pricer.stores.files import format_json
from pricer.stores.hub import LARGEST_TEXT, Hub, RemoteFile, is_there

T = TypeVar("T")
ANSWERS_BRANCH = "answers"
_BATCHES = "evaluations/batches.json"
_PATH = re.compile(r"evaluations/([0-9a-z-]{1,100})-([0-9a-f]{12})/predictions-([0-9]{1,4}of[0-9]{1,4})\.jsonl")
_FAILURES = re.compile(r"evaluations/failures-([0-9a-f]{12})-([0-9]{1,4}of[0-9]{1,4})\.json")
# Maximum number of bytes of an answer (a usual one has 500), and of answers to an item.
_LARGEST_ANSWER, _MOST_ANSWERS = 4_000, 4
# Maximum number of tokens in a batch that is taken over.
_MOST_TOKENS = 10**7
# Attempts of a commit on top of the newest one, which other shards also make.
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class ShardFile:
    """The answers of a candidate that a shard has made: a copy of a file of predictions, whose lines were checked. The
    last line may be torn.
    """

    name: str
    shard: Shard
    path: Path


class HubAnswers:
    """The branch of a repository to which shards push their answers. It is made when it is needed first.

    Anybody who can write to the repository can write answers, so they are read as data from a stranger.
    """

    def __init__(self, hub: Hub) -> None:
        self.repo = hub.repo
        self._hub = hub

    def batch_tokens(self, spec: EvalSpec) -> int | None:
        """The maximum number of tokens in a batch that the shards of an evaluation have in common. None: no shard has
        begun.
        """
        return self._read_batches(self._hub.refs().branches.get(ANSWERS_BRANCH)).get(spec.fingerprint)

    def fix_batch_tokens(self, spec: EvalSpec, batch_tokens: int) -> int:
        """Set that number, unless another shard has set it. Returns the number that is set."""

        def add(head: str) -> dict[str, bytes]:
            known = self._read_batches(head)
            if spec.fingerprint in known:
                return {}
            return {_BATCHES: format_json({**known, spec.fingerprint: batch_tokens}).encode()}

        head = self._commit(add, "size of batches", _ATTEMPTS)
        return self._read_batches(head).get(spec.fingerprint, batch_tokens)

    def push(self, files: Mapping[str, bytes], title: str, *, attempts: int = _ATTEMPTS) -> None:
        """Push files, by their paths in the run's folder. A file of answers that is as long there, or longer, is left
        as it is: the same shard may be answered on two machines, and files of answers only grow.
        """

        def choose(head: str) -> dict[str, bytes]:
            with is_there():
                there = self._hub.files(head, list(files))

            def is_new(path: str, content: bytes) -> bool:
                if path not in there:
                    return True
                return there[path].size < len(content) if path.endswith(".jsonl") else not there[path].holds(content)

            return {path: content for path, content in files.items() if is_new(path, content)}

        self._commit(choose, title, attempts)

    def read(
        self, names: Collection[str], spec: EvalSpec, items: Collection[str], takes: Callable[[Shard], bool]
    ) -> list[ShardFile]:
        """The answers of the candidates with these names under a spec, from the shards that `takes` accepts. A RunError
        if any file is too large, cannot be read, or has answers that cannot be ones to the `items` (their ids).
        """
        head, found = self._list_files()
        limit = _MOST_ANSWERS * _LARGEST_ANSWER * len(items)
        wanted = []
        for path, file in sorted(found.items()):
            match = _PATH.fullmatch(path)
            if match and match[1] in names and match[2] == spec.fingerprint and (shard := _read_shard(match[3])):
                wanted += [(match[1], shard, file)] if takes(shard) else []
        if (size := sum(file.size for _, _, file in wanted)) > limit * len(names):
            text = f"the answers on the branch {ANSWERS_BRANCH} of {self.repo} have {size:,} bytes"
            delete = f"hf repos branch delete {self.repo} {ANSWERS_BRANCH}"
            raise RunError(f"{text}, which is too large (at most {limit * len(names):,})", delete)
        files = []
        for name, shard, file in wanted:
            copy = self._download(head, file, limit)
            self._check(file, partial(check_answers, copy.read_bytes(), items))
            files.append(ShardFile(name, shard, copy))
        return files

    def read_failures(self, spec: EvalSpec, ids: Collection[str]) -> list[tuple[Shard, Failure]]:
        """The checkpoints with these ids that shards could not score. A RunError if a file is too large, or cannot be
        read.
        """
        head, found = self._list_files()
        failures = []
        for path, file in sorted(found.items()):
            match = _FAILURES.fullmatch(path)
            if match and match[1] == spec.fingerprint and (shard := _read_shard(match[2])):
                content = self._download(head, file, LARGEST_TEXT).read_bytes()
                known = self._check(file, partial(check_failures, content, spec, ids))
                failures += [(shard, failure) for failure in known]
        return failures

    def _list_files(self) -> tuple[str, Mapping[str, RemoteFile]]:
        """The head of the branch and its files; none if there is no branch."""
        head = self._hub.refs().branches.get(ANSWERS_BRANCH)
        if head is None:
            return "", {}
        with is_there():
            return head, self._hub.all_files(head)

    def _download(self, head: str, file: RemoteFile, limit: int) -> Path:
        """A copy of a file in the cache; a RunError if it has more than `limit` bytes."""
        if file.size > limit:
            raise self._refuse(file, f"it has {file.size:,} bytes, which is too large (at most {limit:,})")
        return self._hub.download(head, file, limit)

    def _check(self, file: RemoteFile, read: Callable[[], T]) -> T:
        """The result of `read`. Its ValueError becomes a RunError that names the file."""
        try:
            return read()
        except ValueError as error:
            raise self._refuse(file, str(error)) from None

    def _refuse(self, file: RemoteFile, problem: str) -> RunError:
        text = f"{file.path} on the branch {ANSWERS_BRANCH} of {self.repo} cannot be used: {problem}"
        delete = f"hf repos delete-files {self.repo} {file.path} --revision {ANSWERS_BRANCH}"
        return RunError(text, f"{delete}; then answer that shard again")

    def _commit(self, choose: Callable[[str], Mapping[str, bytes]], title: str, attempts: int) -> str:
        """Commit the files that `choose` returns for the head of the branch, on top of it. If another process was
        faster, choose again. Returns the new head.
        """
        for attempt in range(1, attempts + 1):
            try:
                head = self._find_head()
                files = choose(head)
                return self._hub.commit(files, title, branch=ANSWERS_BRANCH, parent=head) if files else head
            except HubError as error:
                if not error.transient or attempt == attempts:
                    raise
                self._hub.wait_after(attempt, error)
        raise AssertionError("the last attempt returns or raises")

    def _find_head(self) -> str:
        branches = self._hub.refs().branches
        if head := branches.get(ANSWERS_BRANCH):
            return head
        if "main" not in branches:
            raise HubError(f"{self.repo} has no branch main")
        self._hub.branch(ANSWERS_BRANCH, start=branches["main"])
        if head := self._hub.refs().branches.get(ANSWERS_BRANCH):
            return head
        raise HubError(f"{self.repo} has no branch {ANSWERS_BRANCH} after it was made", transient=True)

    def _read_batches(self, head: str | None) -> dict[str, int]:
        with is_there():
            record = self._hub.read_record(head, _BATCHES)
        return {name: n for name, n in record.items() if type(n) is int and 0 < n <= _MOST_TOKENS}


def failures_path(spec: EvalSpec, shard: Shard) -> str:
    """The file in which a shard says which checkpoints cannot be scored."""
    return f"evaluations/failures-{spec.fingerprint}-{shard.label}.json"


def _read_shard(label: str) -> Shard | None:
    try:
        shard = parse_shard(label)
    except ValueError:
        return None
    return shard if shard.label == label else None  # 03of8 would be 3of8 a second time
