"""`pricer eval --repo … --shard` and `--merge`: shards on machines that know nothing but the repository."""

import random
import re
import signal
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pricer.commands.evaluate import evaluate_job
from pricer.commands.parts.baselines import BASELINES
from pricer.commands.parts.delivery import Delivery, find_answers, plan_merge
from pricer.commands.parts.hub_records import read_facts
from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
from pricer.commands.parts.jobs import Job, plan_split
from pricer.commands.parts.session import UNTUNED
from pricer.commands.shard import Answered, answer_shard
from pricer.core.cells import Shard
from pricer.core.items import Split
from pricer.errors import Interrupted, RunError
from pricer.stores.hub import Hub
from pricer.stores.hub_answers import ANSWERS_BRANCH, HubAnswers
from pricer.stores.runs import Run
from tests.builders import SPEC
from tests.commands.conftest import Listener
from tests.commands.sessions import FakeScorer
from tests.commands.test_shards import files_of
from tests.loopback_hub import Fault, LoopbackHub, Repo

pytestmark = pytest.mark.usefixtures("no_pauses")


class Machines:
    """Machines that start with an empty folder each. `pause` is the time that passes between two looks at the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder = monkeypatch, folder
        self._count, self._now = 0, 0.0
        self.scorer = FakeScorer(lambda *_: None)
        self.pause = 0.0
        self.bad: set[str] = set()
        self.notes: list[str] = []

    def clock(self) -> float:
        self._now += self.pause
        return self._now

    def start(self, *overrides: str, fail_at: int | None = None) -> Job:
        """The job of scoring all checkpoints, on a new machine. Its scorer fails at a batch."""
        self._count += 1
        folder = self._folder / f"machine-{self._count}"
        folder.mkdir()
        self._patch.chdir(folder)
        scorer = FakeScorer(lambda _, item: 1000.0 + sum(scorer.weights) % 977 + zlib.crc32(item.encode()) % 64 / 64)
        scorer.fail_at, scorer.bad, self.scorer = fail_at, self.bad, scorer
        self._patch.setattr("pricer.commands.parts.opening.load_scorer", lambda *_: scorer)
        run = open_hub_run("ann/prices", GivenConfig(None, overrides), lambda _: None)
        return plan_split(run, "all", Split.VAL, None, Listener())

    def answer(self, job: Job, shard: Shard, listener: Listener | None = None, *, race: bool = False) -> Answered:
        listener = listener or Listener()
        delivery = Delivery(find_answers(job.run), shard, listener, self.clock, lambda _: None)
        return answer_shard(job, shard, listener, race=race, delivery=delivery)

    def merge(self, job: Job, *, race: bool = False) -> Mapping[str, bytes]:
        listener = Listener()
        self.notes = listener.notes
        evaluate_job(job, listener, race=race, fill=plan_merge(job, find_answers(job.run), listener))
        return files_of(job.run)


def again(job: Job) -> Job:
    """The same job for the next command on its machine."""
    return replace(job, run=Run(job.run.folder))


def shard_files(job: Job) -> list[str]:
    """The names of the files of shards in the folder of a run."""
    return sorted({path.name for path in job.run.folder.glob("evaluations/*/predictions-*.jsonl")})


@pytest.fixture
def machines(pushed: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machines:
    names = ("train median", UNTUNED)
    monkeypatch.setattr("pricer.commands.parts.baselines.BASELINES", {name: BASELINES[name] for name in names})
    return Machines(monkeypatch, tmp_path)


def undisturbed(machines: Machines, *, race: bool = False) -> Mapping[str, bytes]:
    """The files of an evaluation on one machine."""
    job = machines.start("eval.batch_tokens=100")
    evaluate_job(job, Listener(), race=race)
    return files_of(job.run)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_shards_on_lost_machines_are_merged_into_the_undisturbed_evaluation(
    machines: Machines, pushed: Repo, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    whole, titles = undisturbed(machines), [commit.title for commit in pushed.commits()]
    monkeypatch.setattr(Delivery, "push_at_last", lambda *_: None)  # as if killed
    machines.pause, dice = 200.0, random.Random(seed)
    shards = [Shard(number, 8) for number in range(1, 9)]
    waiting = [*shards, dice.choice(shards)]
    dice.shuffle(waiting)
    for turn, shard in enumerate(waiting):
        # Only the first machine knows the size of batches. The others take it over.
        overrides = ["eval.batch_tokens=100"] if turn == 0 else []
        with suppress(SystemError):
            machines.answer(machines.start(*overrides, fail_at=dice.choice([0, 1, 2])), shard)
        machines.answer(machines.start(), shard)

    merged = machines.merge(machines.start())

    assert machines.scorer.asked == []
    assert merged == whole
    assert "answers of 8 of 8 shards from ann/prices; missing ones are made here" in machines.notes
    assert [commit.title for commit in pushed.commits()] == titles  # `main` is as it was


def test_a_race_on_machines_of_their_own_is_the_undisturbed_race(machines: Machines) -> None:
    whole = undisturbed(machines, race=True)
    # Two rounds, then the other items of the winner: each machine sees what all have pushed before it.
    for number in (1, 2, 1, 2, 2, 1):
        last = machines.answer(machines.start("eval.batch_tokens=100"), Shard(number, 2), race=True)

    job = machines.start()
    merged = machines.merge(job, race=True)

    assert (last.is_round, last.missing, machines.scorer.asked) == (False, 0, [])
    assert last.merge == "pricer eval --repo ann/prices --all-checkpoints --race --merge"
    assert merged == whole
    # What is there is not fetched again.
    assert machines.merge(again(job), race=True) == whole
    machines.answer(again(job), Shard(1, 2), race=True)
    assert {name for name in files_of(job.run) if not name.endswith(".lock")} == whole.keys()


def test_shards_of_a_race_agree_about_a_checkpoint_that_only_one_of_them_meets(machines: Machines) -> None:
    job = machines.start("eval.batch_tokens=100")
    machines.bad = {job.run.store.fetch(job.checkpoints[-1]).name}  # in the share of shard 2
    for number in (2, 1, 2, 1, 2, 1):
        last = machines.answer(machines.start("eval.batch_tokens=100"), Shard(number, 2), race=True)

    assert (last.is_round, last.missing) == (False, 0)
    assert [failure.name for failure in last.failed] == [job.checkpoints[-1].name]
    merged = machines.start()
    machines.merge(merged, race=True)
    assert (machines.scorer.asked, len(merged.run.evaluations.failures())) == ([], 1)


def test_a_race_whose_checkpoints_all_fail_is_over(machines: Machines) -> None:
    job = machines.start("eval.batch_tokens=100")
    machines.bad = {job.run.store.fetch(checkpoint).name for checkpoint in job.checkpoints}

    last = machines.answer(machines.start("eval.batch_tokens=100"), Shard(1, 1), race=True)

    assert (last.is_round, last.missing, len(last.failed)) == (False, 0, 3)


def test_answers_of_other_machines_are_used_only_where_they_are_asked_for(machines: Machines) -> None:
    machines.answer(machines.start("eval.batch_tokens=100"), Shard(1, 2), race=True)
    job = machines.start()
    machines.answer(job, Shard(2, 2), race=True)
    assert shard_files(job) == ["predictions-2of2.jsonl"]
    merge = machines.start()
    machines.scorer.fail_at = 0  # the merge ends when it has read what is there

    with pytest.raises(SystemError):
        machines.merge(merge)

    assert shard_files(merge) == []


def test_a_race_is_merged_also_if_no_answers_of_the_base_are_there(machines: Machines) -> None:
    machines.answer(machines.start("eval.batch_tokens=100"), Shard(2, 2), race=True)

    merged = machines.merge(machines.start(), race=True)

    assert "answers of 1 of 2 shards from ann/prices; missing ones are made here" in machines.notes
    assert merged == undisturbed(machines, race=True)


def test_batches_of_another_size_than_the_shards_have_are_refused(machines: Machines) -> None:
    job = machines.start("eval.batch_tokens=100")
    find_answers(job.run).fix_batch_tokens(job.spec, 64)
    job.run.evaluations.fix_batch_tokens(job.spec, 100)
    text = r"^the shards have batches of up to 64 tokens, but ann--prices has begun with 100$"

    with pytest.raises(RunError, match=text):
        machines.answer(job, Shard(1, 2))
    with pytest.raises(RunError, match=text):
        machines.merge(job)


def test_the_commands_for_the_user_repeat_the_config_that_was_given(machines: Machines) -> None:
    job, listener = machines.start("eval.batch_tokens=100"), Listener()
    given = GivenConfig(Path("my own.yaml"), ["eval.batch_tokens=100"])

    answered = answer_shard(job, Shard(1, 1), listener, given=given)

    words = "--config 'my own.yaml' --set eval.batch_tokens=100"
    assert answered.merge == f"pricer eval --run ann--prices {words} --all-checkpoints"


def test_a_fact_that_is_recorded_while_the_repository_is_opened_is_kept(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = machines.start()

    def read(*arguments: Any) -> Mapping[str, Any]:
        job.run.record(batch_tokens={"cpu": 512})  # by another shard in this folder
        return read_facts(*arguments)

    monkeypatch.setattr("pricer.commands.parts.hub_runs.read_facts", read)
    run = open_hub_run("ann/prices", GivenConfig(None, ()), lambda _: None)

    assert run.facts()["batch_tokens"] == {"cpu": 512}


def test_a_restarted_shard_does_not_answer_again_what_it_has_pushed(machines: Machines) -> None:
    first = machines.answer(machines.start("eval.batch_tokens=100"), Shard(1, 2))

    second = machines.answer(machines.start(), Shard(1, 2))

    assert (second.cells, second.answered, machines.scorer.asked) == (first.cells, 0, [])
    assert second.merge == "pricer eval --repo ann/prices --all-checkpoints --merge"


def test_a_shard_that_fails_or_is_interrupted_pushes_what_it_has(machines: Machines, pushed: Repo) -> None:
    with pytest.raises(SystemError):
        machines.answer(machines.start("eval.batch_tokens=100", fail_at=2), Shard(1, 1))

    machines.answer(machines.start(), Shard(1, 1))

    assert len(pushed.commits(ANSWERS_BRANCH)) - len(pushed.commits()) == 3  # the size of batches, two of answers


@pytest.mark.parametrize("faults", [0, 3, 100])
def test_a_shard_that_ends_with_an_error_tries_hard_to_push_and_says_if_it_fails(
    machines: Machines, pushed: Repo, hub: LoopbackHub, faults: int
) -> None:
    listener, job = Listener(), machines.start("eval.batch_tokens=100", fail_at=2)
    find_answers(job.run).fix_batch_tokens(job.spec, 100)
    hub.faults.script("POST", "/commit/", [Fault.status(412)] * faults)  # all shards end at the same time

    with pytest.raises(SystemError):
        machines.answer(job, Shard(1, 1), listener)

    is_lost = [note for note in listener.notes if note.startswith("the newest answers are in runs/ann--prices but not")]
    assert len(is_lost) == (faults == 100)
    assert any("predictions-1of1" in path for path in pushed.files(ANSWERS_BRANCH)) == (faults < 100)


def test_a_shard_that_is_interrupted_in_its_last_push_pushes_again(
    machines: Machines, pushed: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, signals, push = machines.start("eval.batch_tokens=100"), [signal.SIGTERM], HubAnswers.push

    def interrupt(*arguments: Any, **options: Any) -> None:
        if signals:
            signal.raise_signal(signals.pop())
        push(*arguments, **options)

    monkeypatch.setattr(HubAnswers, "push", interrupt)

    with pytest.raises(Interrupted):
        machines.answer(job, Shard(1, 1))

    assert any("predictions-1of1" in path for path in pushed.files(ANSWERS_BRANCH))


def test_answers_are_pushed_from_time_to_time_and_the_hub_may_fail_meanwhile(
    machines: Machines, pushed: Repo, hub: LoopbackHub
) -> None:
    listener, job = Listener(), machines.start("eval.batch_tokens=100")
    find_answers(job.run).fix_batch_tokens(job.spec, 100)
    machines.pause = 25.0  # a commit is due every 60 seconds: at every third cell
    hub.faults.script("POST", "/commit/", [Fault.status(503), Fault.cut_answer()])

    machines.answer(job, Shard(1, 1), listener)

    assert len([note for note in listener.notes if note.startswith("the answers wait here for the Hub: ")]) == 1
    commits = [commit.title for commit in pushed.commits(ANSWERS_BRANCH)]
    assert 2 <= commits.count("answers of shard 1/1") <= len(machines.scorer.asked) // 3 + 1
    assert machines.merge(machines.start()) == undisturbed(machines)


def test_two_shards_that_commit_at_the_same_time_both_succeed(
    machines: Machines, pushed: Repo, hub: LoopbackHub
) -> None:
    job = machines.start("eval.batch_tokens=100")
    answers = find_answers(job.run)
    answers.push({"evaluations/a": b"1\n"}, "one")
    hub.faults.script("POST", "/commit/", [Fault.status(412)])

    answers.push({"evaluations/b": b"2\n"}, "two")

    assert {"evaluations/a", "evaluations/b"} <= pushed.files(ANSWERS_BRANCH).keys()


def test_a_longer_file_is_not_replaced_by_a_shorter_one(machines: Machines, pushed: Repo) -> None:
    answers = find_answers(machines.start().run)
    answers.push({"evaluations/a.jsonl": b"1\n2\n"}, "one")

    answers.push({"evaluations/a.jsonl": b"1\n"}, "two")

    assert pushed.files(ANSWERS_BRANCH)["evaluations/a.jsonl"] == b"1\n2\n"
    assert pushed.commits(ANSWERS_BRANCH)[0].title == "one"


def test_a_merge_without_answers_evaluates_nothing(machines: Machines) -> None:
    job = machines.start()

    with pytest.raises(RunError, match=r"^ann/prices has no answers of shards to this evaluation$"):
        machines.merge(job)

    assert machines.scorer.asked == []


def change(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda c: change(c, b'"item_id": "', b'"item_id": "x'), r"line 1: there is no item 'x.*' in this evaluation"),
        (lambda c: re.sub(rb'"price": [0-9.]+', b'"price": "1"', c, count=1), r"line 1: batch\.0\.price is '1"),
        (lambda c: re.sub(rb'"price": [0-9.]+', b'"price": -5.0', c, count=1), r"line 1: price is -5\.0, not between "),
        (lambda c: re.sub(rb'"price": [0-9.]+', b'"price": 1e308', c, count=1), r"line 1: price is 1e\+308, not "),
        (lambda c: change(c, b'"price": ', b'"prise": '), r"line 1: batch\.0\.pri[sc]e is (unknown|missing)"),
        (lambda c: b"[" * 5000 + b"\n" + c, "line 1: "),
        (lambda c: b"\xff\n" + c, "line 1: "),
    ],
)
def test_answers_that_no_shard_has_written_are_refused_in_one_line(
    machines: Machines, pushed: Repo, damage: Callable[[bytes], bytes], problem: str
) -> None:
    machines.answer(machines.start("eval.batch_tokens=100"), Shard(1, 1))
    path = max(name for name in pushed.files(ANSWERS_BRANCH) if name.endswith("predictions-1of1.jsonl"))
    pushed.commit({path: damage(pushed.files(ANSWERS_BRANCH)[path])}, "damaged", ANSWERS_BRANCH)

    job = machines.start()

    with pytest.raises(RunError) as raised:
        machines.merge(job)

    assert raised.value.hint.startswith(f"hf repos delete-files ann/prices {path} --revision answers")
    assert shard_files(job) == []
    where = f"{path} on the branch answers of ann/prices cannot be used: "
    assert re.fullmatch(re.escape(where) + problem + ".*", raised.value.message)  # in one line
    assert machines.scorer.asked == []


def test_answers_that_are_too_large_are_not_downloaded(machines: Machines, pushed: Repo, hub: LoopbackHub) -> None:
    machines.answer(machines.start("eval.batch_tokens=100"), Shard(1, 1))
    path = min(name for name in pushed.files(ANSWERS_BRANCH) if name.endswith("predictions-1of1.jsonl"))
    # Each of the 12 items may be answered four times, in 4,000 bytes each: 192,000 in a file.
    pushed.commit({path: b" " * 192_001}, "large", ANSWERS_BRANCH)

    with pytest.raises(RunError, match=r"it has 192,001 bytes, which is too large \(at most 192,000\)") as raised:
        machines.merge(machines.start())

    assert raised.value.hint.startswith(f"hf repos delete-files ann/prices {path} --revision answers")


@pytest.mark.parametrize("name", ["predictions-0of8.jsonl", "predictions-03of8.jsonl", "predictions-1of1.json", "../x"])
def test_files_with_other_names_are_not_read(repo: Repo, hub: LoopbackHub, name: str) -> None:
    repo.create_branch(ANSWERS_BRANCH)
    repo.commit_raw({f"evaluations/{'a' * 40}-{SPEC.fingerprint}/{name}": b"{}\n"}, "odd", ANSWERS_BRANCH)
    answers = HubAnswers(Hub(repo.id))

    assert answers.read(["a" * 40], SPEC, ["item"], lambda _: True) == []


@pytest.mark.parametrize("content", [b"{", b'{"x": 0}', b"[]", b'{"SPEC": -1}', b'{"SPEC": true}', b'{"SPEC": 1e9}'])
def test_a_size_of_batches_that_cannot_be_one_is_replaced(repo: Repo, content: bytes) -> None:
    repo.create_branch(ANSWERS_BRANCH)
    record = content.replace(b"SPEC", SPEC.fingerprint.encode())
    repo.commit({"evaluations/batches.json": record}, "odd", ANSWERS_BRANCH)
    answers = HubAnswers(Hub(repo.id))

    assert answers.batch_tokens(SPEC) is None
    assert answers.fix_batch_tokens(SPEC, 512) == 512
    assert answers.fix_batch_tokens(SPEC, 64) == 512
