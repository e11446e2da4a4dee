"""Repositories that somebody made to do harm: one line says what is wrong, nothing of theirs runs or gets out."""

import io
import itertools
import json
import os
import pickle
import re
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load, save

from pricer.stores.training_states import STATE_FILES
from tests.commands.conftest import _stopped as _stopped  # noqa: PLC0414 (fixtures)
from tests.commands.conftest import stopped as stopped  # noqa: PLC0414
from tests.loopback_hub import LfsFile, LoopbackHub, Repo
from tests.repositories import ADAPTER, ADAPTER_CONFIG, Cli, adapter_config, sha256, use_cache

REPO = "ann/stopped"
EVAL = ("eval", "--repo", REPO, "--all-checkpoints", "--limit", "2")
RESUME = ("train", "--resume", "--repo", REPO)
TAG = "step-000004"
RED = "\x1b[31m\x1b]0;title\x07\u202e\x9b2J"
"""What a terminal obeys: colour, a title, text that runs backwards, a screen that is cleared."""


class Bomb:
    """Unpickling it leaves a file named `ran` in the working folder."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


class World:
    """A folder in which one of pricer's commands runs: only runs/, data/ and what HF_HOME names may change in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder / "world"
        self._work = self._folder / "home" / "work"
        (self._folder / "tmp").mkdir(parents=True)
        self._work.mkdir(parents=True)
        (self._folder / "home" / "mine.txt").write_text("mine")
        (self._work / "mine.yaml").write_text("data:\n  train_limit: 48\n  val_limit: 2\n  test_limit: 2\n")
        monkeypatch.chdir(self._work)
        monkeypatch.setattr(tempfile, "tempdir", str(self._folder / "tmp"))
        use_cache(self._folder / "cache", monkeypatch)

    def runs(self, *arguments: str) -> Cli:
        """Run a command, and see that it kept to its places, its time and plain text."""
        before, began = self._listing(), time.monotonic()
        result = Cli(*arguments)
        assert time.monotonic() - began < 60
        for thread in threading.enumerate():
            if thread.name == "uploader":  # it would end with the process
                thread.join(30)
        assert self._listing() == before
        assert "Traceback" not in result.err
        assert (result.out + result.err).replace("\n", "").isprintable()
        return result

    def refuses(self, problem: str, *arguments: str) -> None:
        """The command fails with one line that `problem` matches."""
        result = self.runs(*arguments)
        errors = [line for line in result.err.splitlines() if line.startswith("error:")]
        assert (result.code, result.out, len(errors)) == (1, "", 1), result.err
        assert re.fullmatch(f"error: {problem}", errors[0]), errors[0]
        assert len(result.err) < 2000

    def _listing(self) -> dict[str, bytes | None]:
        allowed = (self._folder / "cache", self._work / "runs", self._work / "data")
        return {
            str(path): path.read_bytes() if path.is_file() else None
            for path in sorted(self._folder.rglob("*"))
            if not any(path.is_relative_to(folder) for folder in allowed)
        }


@pytest.fixture
def world(tmp_path: Path, stopped: Repo, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def amend(repo: Repo, files: Mapping[str, bytes | LfsFile], delete: tuple[str, ...] = ()) -> None:
    """Let the newest checkpoint's commit be another one, with these files."""
    made = dict(files)
    if isinstance(content := made.get(ADAPTER), bytes):
        made[ADAPTER] = LfsFile(content)
    repo.tags[TAG] = repo.commit_raw(made, TAG, delete=delete).hash


def manifest(repo: Repo, **changes: Any) -> bytes:
    """The newest checkpoint's manifest with other entries, in itself consistent."""
    record = {**json.loads(repo.files(TAG)["manifest.json"]), **changes}
    del record["id"]
    return json.dumps(record).encode()


def weights(content: bytes, size: int | None = None) -> Callable[[Repo], None]:
    """Another adapter, with a manifest that is right about it."""

    def change(repo: Repo) -> None:
        described = manifest(repo, adapter_sha256=sha256(content))
        amend(repo, {ADAPTER: LfsFile(content, size=size), "manifest.json": described})

    return change


def tensors(spoil: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Repo], None]:
    def change(repo: Repo) -> None:
        held = load(repo.files(TAG)[ADAPTER])
        spoil(held)
        weights(save(held))(repo)

    return change


def settings(**changes: Any) -> Callable[[Repo], None]:
    """Another adapter_config.json, with a manifest that is right about it."""

    def change(repo: Repo) -> None:
        record = {**json.loads(repo.files(TAG)[ADAPTER_CONFIG]), **changes}
        content = json.dumps(record).encode()
        amend(repo, {ADAPTER_CONFIG: content, "manifest.json": manifest(repo, adapter_config_sha256=sha256(content))})

    return change


def file(name: str, content: bytes) -> Callable[[Repo], object]:
    return lambda repo: amend(repo, {name: content})


def config(**sections: Any) -> Callable[[Repo], None]:
    """Another config.yaml: these sections in place of the run's own."""

    def change(repo: Repo) -> None:
        own = yaml.safe_load(repo.files(TAG)["config.yaml"])
        amend(repo, {"config.yaml": yaml.safe_dump({**own, **sections}).encode()})

    return change


def a_nan(held: dict[str, torch.Tensor]) -> None:
    next(iter(held.values()))[0, 0] = float("nan")


def a_row_too_many(held: dict[str, torch.Tensor]) -> None:
    name = min(held)
    held[name] = torch.cat([held[name], held[name][:1]])


def pickled_weights_alone(repo: Repo) -> None:
    amend(repo, {"adapter_model.bin": pickle.dumps(Bomb())}, delete=(ADAPTER,))


LEVELS = [f"&{after} [{','.join([f'*{before}'] * 9)}]" for before, after in itertools.pairwise("abcdefghij")]
BOMB = f"[&a [x,x,x,x,x,x,x,x,x], {', '.join(LEVELS)}]"
"""A line of YAML that stands for three thousand million words."""
DEEP = b"[" * 100_000
NOT_READ = rf"{REPO} at its tag {TAG} has no manifest.json that can be read: .+"
PLACE = rf"\(config.yaml of {REPO}, line \d+\)"
UNFIT = r"the adapter in \S+ does not fit the base: .+"

BAD: dict[str, tuple[Callable[[Repo], object], str]] = {
    # Weights.
    "a pickle by the name of weights": (weights(pickle.dumps(Bomb())), r"\S+ cannot be used: its header has .+"),
    "a pickle alone": (pickled_weights_alone, rf"{TAG} of {REPO} \(\w+\) has no {ADAPTER}"),
    "ten terabytes": (
        weights(b"small", size=10**13),
        rf"{REPO} has a {ADAPTER} of 10,000,000,000,000 bytes, which is too large \(at most 32,000,000,000\)",
    ),
    "a header of exabytes": (
        weights(struct.pack("<Q", 2**62) + b"{}"),
        r"\S+ cannot be used: its header has 4,611,686,018,427,387,904 bytes, 16,000,000 at most",
    ),
    "half a file": (lambda repo: weights(repo.files(TAG)[ADAPTER][:-100])(repo), r"\S+ cannot be read: .+"),
    "other weights than its manifest says": (
        file(ADAPTER, b"something else"),
        rf"{TAG} of {REPO} \(\w+\) is not what its manifest says: the Hub has sha256 \w+…, the manifest \w+…",
    ),
    "not a number": (tensors(a_nan), r"the adapter in \S+ has weights that are not numbers \(1 tensors, .+ for one\)"),
    "wrong shapes": (tensors(a_row_too_many), UNFIT),
    "no tensors": (tensors(lambda held: held.clear()), UNFIT),
    # Hub says one thing, delivers another: huggingface_hub itself takes no notice of an LFS file's hash.
    "other bytes than the hub promises": (
        lambda repo: amend(
            repo,
            {
                ADAPTER: LfsFile(b"something else", sha256=sha256(b"promised")),
                "manifest.json": manifest(repo, adapter_sha256=sha256(b"promised")),
            },
        ),
        rf"{TAG} is not what its manifest says: \S+ has sha256 \w+…, the manifest \w+…",
    ),
    # Settings of the adapter.
    "code of its own": (
        settings(auto_map={"AutoModel": "evil.Model"}),
        r"\S+ cannot be used: auto_map is an object, which is not supported",
    ),
    "a module to import": (
        settings(megatron_config={"a": 1}, megatron_core="evil"),
        r"\S+ cannot be used: megatron_(config|core) is .+, which is not supported",
    ),
    "a pattern that never ends": (
        settings(target_modules="(a+)+$"),
        r"\S+ cannot be used: target_modules is the pattern .+",
    ),
    "a rank of a billion": (settings(r=10**9), r"\S+ cannot be used: r is 1000000000, it must be .+"),
    "settings of a megabyte": (
        file(ADAPTER_CONFIG, b" " * 1_000_001),
        rf"{REPO} has a {ADAPTER_CONFIG} of 1,000,001 bytes, which is too large \(at most 1,000,000\)",
    ),
    "a link to a file here": (
        # Git keeps a symbolic link as a file that holds where it leads to.
        lambda repo: amend(
            repo,
            {
                ADAPTER_CONFIG: b"/etc/passwd",
                "manifest.json": manifest(repo, adapter_config_sha256=sha256(b"/etc/passwd")),
            },
        ),
        r"\S+ has no adapter_config.json that can be read",
    ),
    "an adapter of another base": (
        lambda repo: amend(repo, {"manifest.json": manifest(repo, base="acme/other", base_revision="0" * 40)}),
        r"checkpoint step 4 \(\w+\) was trained with base acme/other@0+, this run has base builtin:base@\w+",
    ),
    "an adapter of another base that paints": (
        lambda repo: amend(repo, {"manifest.json": manifest(repo, base=RED, base_revision="0" * 40)}),
        r"checkpoint step 4 \(\w+\) was trained with base \\x1b.+",
    ),
}
"""Bad checkpoints: the others are scored, and the reason is said."""

SCORED: dict[str, tuple[Callable[[Repo], object], str]] = {
    # The config.
    "an unknown setting": (config(hooks={"before": "touch ran"}), rf"hooks is not a section {PLACE}"),
    "a setting that paints": (config(**{RED: 1}), r"\\x1b\[31m.+ is not a section .+"),
    "an object in YAML": (
        file("config.yaml", b"data: !!python/object/apply:os.system ['touch ran']\n"),
        rf"not YAML: could not determine a constructor for the tag .+ {PLACE}",
    ),
    "words without end": (
        file("config.yaml", f"prompt: {{question: {BOMB}}}".encode()),
        rf"prompt.question is \[.+: input should be a valid string {PLACE}",
    ),
    "names without end": (
        file("config.yaml", f"adapter: {{target_modules: {BOMB}}}".encode()),
        rf"adapter.target_modules is \[.+: input should be .+ {PLACE}",
    ),
    "a number without end": (
        file("config.yaml", b"data: {val_limit: 0x" + b"f" * 90_000 + b"}"),
        r"unexpected ValueError: Exceeds the limit \(4300 digits\).+",
    ),
    "ten thousand settings": (
        file("config.yaml", b"".join(b"s%d:\n" % n for n in range(10_000))),
        rf"10,000 settings are given, at most 300 are read \(config.yaml of {REPO}\)",
    ),
    "a config of a megabyte": (
        file("config.yaml", b"#" * 1_000_000),
        rf"{REPO} has a config.yaml of 1,000,000 bytes, which is too large \(at most 100,000\)",
    ),
    "YAML without end": (file("config.yaml", DEEP), r"not YAML: .+"),
    "a config that is not text": (file("config.yaml", b"\xff\xfe\x00"), r"not UTF-8 .+"),
    "a token": (config(tracking={"project": "hf_" + "a" * 34}), rf"tracking.project holds a token {PLACE}"),
    "a base that is a folder here": (config(model={"base": "../.."}), r"there is no config.json in ../.."),
    "a base that is somebody's": (config(model={"base": "eve/base"}), r"there is no base eve/base on the Hub, .+"),
    "data that are files here": (
        config(data={"source": "../mine.txt"}),
        r"../mine.txt is not a .csv, .+ or .parquet file",
    ),
    "facts that are a list": (file("run.json", b"[]"), rf"run.json of {REPO} cannot be read"),
    "facts without end": (file("run.json", DEEP), rf"run.json of {REPO} cannot be read"),
    # Nothing is left out of what belongs to a checkpoint.
    "no config": (lambda repo: amend(repo, {}, delete=("config.yaml",)), rf"{REPO} has no config.yaml at \w+"),
}

# Tags that cannot be used, with the notes about them.
LEFT_OUT: dict[str, tuple[Callable[[Repo], object], str]] = {
    "a manifest of another step": (
        lambda repo: amend(repo, {"manifest.json": manifest(repo, step=9)}),
        rf"{REPO} at its tag {TAG} holds step-000009",
    ),
    "a manifest that lies about itself": (
        lambda repo: amend(
            repo, {"manifest.json": json.dumps({**json.loads(manifest(repo)), "id": "0" * 40}).encode()}
        ),
        NOT_READ,
    ),
    "a manifest that is not JSON": (file("manifest.json", b"\xff{"), NOT_READ),
    "a manifest without end": (file("manifest.json", DEEP), NOT_READ),
    "a manifest with a number of a million digits": (
        file("manifest.json", b'{"step": ' + b"1" * 900_000 + b"}"),
        NOT_READ,
    ),
    "a manifest of a megabyte": (
        file("manifest.json", b" " * 1_000_001),
        rf"{REPO} has a manifest.json of 1,000,001 bytes, which is too large .+",
    ),
    "a manifest that paints": (
        lambda repo: amend(repo, {"manifest.json": json.dumps({**json.loads(manifest(repo)), RED: 1}).encode()}),
        NOT_READ.removesuffix(".+") + r"'\\x1b\[31m.+ is unknown",
    ),
}


# One of each kind; the others take their time with all that is slow.
OFTEN = {
    "a pickle by the name of weights",
    "a pickle alone",
    "ten terabytes",
    "half a file",
    "other weights than its manifest says",
    "not a number",
    "wrong shapes",
    "a module to import",
    "a link to a file here",
    "a manifest of another step",
    "a manifest without end",
    "a manifest that paints",
    "an adapter of another base",
    "an unknown setting",
    "an object in YAML",
    "words without end",
    "ten thousand settings",
    "a token",
    "a base that is a folder here",
    "facts that are a list",
    "an optimizer that runs code",
    "random numbers that run code",
    "a file outside",
    "a log without steps",
    "weights that are none",
}


def cases(table: Mapping[str, object]) -> list[Any]:
    return [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in table]


@pytest.mark.parametrize("name", cases(BAD))
def test_a_bad_checkpoint_is_left_out(name: str, stopped: Repo, world: World) -> None:
    spoil, problem = BAD[name]
    spoil(stopped)

    result = world.runs(*EVAL, "--json")

    assert [e["candidate"]["step"] for e in result.json()["evaluations"]] == [*[None] * 4, 2]
    (said,) = [line for line in result.err.splitlines() if line.startswith(f"{TAG} cannot be scored: ")]
    assert re.fullmatch(f"{TAG} cannot be scored: {problem}", said), said


@pytest.mark.parametrize("name", cases(SCORED))
def test_what_is_scored(name: str, stopped: Repo, world: World) -> None:
    spoil, problem = SCORED[name]
    spoil(stopped)

    world.refuses(problem, *EVAL)


@pytest.mark.parametrize("name", cases(LEFT_OUT))
def test_a_damaged_tag_costs_its_checkpoint_alone(name: str, stopped: Repo, world: World) -> None:
    spoil, problem = LEFT_OUT[name]
    spoil(stopped)

    result = world.runs(*EVAL, "--json")

    assert [e["candidate"]["step"] for e in result.json()["evaluations"]] == [*[None] * 4, 2]
    assert re.fullmatch(rf"{problem}: left out.*", result.err.splitlines()[0])


def test_a_manifest_does_not_say_where_it_lies(stopped: Repo, world: World) -> None:
    amend(stopped, {"manifest.json": manifest(stopped, folder="../../..", commit="0" * 40)})

    result = world.runs(*EVAL, "--json")

    assert [e["candidate"]["step"] for e in result.json()["evaluations"]] == [*[None] * 4, 2, 4]


def test_files_and_tags_that_nobody_asked_for_are_left_where_they_are(stopped: Repo, world: World) -> None:
    names = [
        "../outside",
        "/tmp/outside",
        "a/../../outside",
        "evil.py",
        "pricer/__init__.py",
        f"{RED}.txt",
        ".git/hooks/x",
    ]
    amend(stopped, dict.fromkeys(names, b"import os; os.system('touch ran')"))
    for tag in ("step-000009/../../x", "../../x", f"step-000009{RED}", "step-1_000", "best"):
        stopped.tags[tag] = stopped.tags[TAG]

    result = world.runs(*EVAL, "--json")

    assert [e["candidate"]["step"] for e in result.json()["evaluations"]] == [*[None] * 4, 2, 4]
    assert not Path("/tmp/outside").exists()


def put_state(repo: Repo, files: Mapping[str, bytes], record: object = None) -> None:
    """Another training state, with a record that is right about it, or this one."""
    held = {**repo.files("state"), **files}
    hashes = {name: sha256(held[name]) for name in STATE_FILES if name in held and name != "state.json"}
    repo.commit({**files, "state.json": json.dumps(record or {"files": hashes}).encode()}, "state", branch="state")


def torch_bomb() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state": Bomb(), "param_groups": []}, buffer)
    return buffer.getvalue()


def in_trainer_state(**changes: Any) -> Callable[[Repo], None]:
    def change(repo: Repo) -> None:
        record = {**json.loads(repo.files("state")["trainer_state.json"]), **changes}
        put_state(repo, {"trainer_state.json": json.dumps(record).encode()})

    return change


def state_adapter(spoil: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Repo], None]:
    def change(repo: Repo) -> None:
        held = load(repo.files("state")[ADAPTER])
        spoil(held)
        content = save(held)
        record = {**json.loads(repo.files("state")["manifest.json"]), "adapter_sha256": sha256(content)}
        del record["id"]
        put_state(repo, {ADAPTER: content, "manifest.json": json.dumps(record).encode()})

    return change


def state_file(name: str, content: bytes) -> Callable[[Repo], None]:
    return lambda repo: put_state(repo, {name: content})


def beside_state(name: str, content: bytes) -> Callable[[Repo], object]:
    return lambda repo: repo.commit({name: content}, "state", branch="state")


def no_numbers(name: str) -> str:
    return rf"runs/stopped/state/checkpoint-4/{name} cannot be read as numbers, and nothing else is read"


UNREADABLE = rf"{REPO} has no training state that can be read on its branch state"
DAMAGED = r"runs/stopped/metrics.jsonl is damaged: "
OF_ANOTHER = rf"the training state in {REPO} has the adapter of step 4, but its trainer is at another step"

RESUMED: dict[str, tuple[Callable[[Repo], object], str]] = {
    "an optimizer that runs code": (state_file("optimizer.pt", torch_bomb()), no_numbers("optimizer.pt")),
    "an optimizer that is a bare pickle": (
        state_file("optimizer.pt", pickle.dumps(Bomb())),
        no_numbers("optimizer.pt"),
    ),
    "a schedule that runs code": (state_file("scheduler.pt", torch_bomb()), no_numbers("scheduler.pt")),
    "random numbers that run code": (state_file("rng_state.pth", torch_bomb()), no_numbers("rng_state.pth")),
    "an optimizer that is text": (state_file("optimizer.pt", b"hello"), no_numbers("optimizer.pt")),
    "a file outside": (lambda repo: put_state(repo, {}, {"files": {"../../outside": "0" * 64}}), UNREADABLE),
    "a file at the root": (lambda repo: put_state(repo, {}, {"files": {"/tmp/outside": "0" * 64}}), UNREADABLE),
    "a record that paints": (lambda repo: put_state(repo, {}, {"files": {RED: "0" * 64}}), UNREADABLE),
    "a record without end": (beside_state("state.json", DEEP), UNREADABLE),
    "a log that is none": (beside_state("metrics.jsonl", b"what\n"), DAMAGED + r"not a JSON object .+"),
    "a log without steps": (beside_state("metrics.jsonl", b'{"step": "x"}\n'), DAMAGED + "step is 'x'"),
    "a log without end": (beside_state("metrics.jsonl", DEEP + b"\n"), DAMAGED + r"not a JSON object .+"),
    "a trainer state of another step": (in_trainer_state(global_step=5), OF_ANOTHER),
    "a trainer state before the beginning": (in_trainer_state(global_step=-5), OF_ANOTHER),
    "a trainer state with a history of nothing": (in_trainer_state(log_history=7), r"unexpected AttributeError: .+"),
    "weights that are not numbers": (state_adapter(a_nan), r"the adapter in \S+ has weights that are not numbers .+"),
    "weights of another shape": (state_adapter(a_row_too_many), UNFIT),
    "weights that are none": (state_adapter(lambda held: held.clear()), UNFIT),
}


@pytest.mark.parametrize("name", cases(RESUMED))
def test_what_is_gone_on_with(name: str, stopped: Repo, world: World) -> None:
    spoil, problem = RESUMED[name]
    spoil(stopped)

    world.refuses(problem, *RESUME)


class TestOfOtherTrainers:
    """What a Trainer's repository can be made to say."""

    @pytest.fixture
    def plain(self, hub: LoopbackHub) -> Repo:
        return hub.create("eve/plain")

    asked = ("eval", "--repo", "eve/plain", "--config", "mine.yaml", "--all-checkpoints")

    def test_titles_branches_and_names_are_shown_as_plain_text(self, plain: Repo, stopped: Repo, world: World) -> None:
        held = stopped.files(TAG)
        adapter = {ADAPTER: held[ADAPTER], ADAPTER_CONFIG: held[ADAPTER_CONFIG]}
        plain.commit({f"{RED}.txt": b"x"}, f"step 1 {RED}")
        plain.create_branch(f"{RED}/step-2")
        plain.commit(adapter, "adapter")
        plain.commit(adapter, f"step 4 {RED}")

        result = world.runs(*self.asked, "--json")

        assert [e["candidate"]["step"] for e in result.json()["evaluations"]] == [*[None] * 4, 4]
        shown = r"\x1b[31m\x1b]0;title\x07\u202e\x9b2J"
        assert f"branch {shown}/step-2 has no {ADAPTER}: left out" in result.err
        assert f"(step 1 {shown}) has no {ADAPTER}: left out" in result.err

    def test_folders_that_lead_elsewhere_are_none(self, plain: Repo, stopped: Repo, world: World) -> None:
        held = stopped.files(TAG)
        for folder in ("../checkpoint-1", "/checkpoint-2", "checkpoint-3/..", "checkpoint-4/../../x"):
            plain.commit_raw({f"{folder}/{ADAPTER}": LfsFile(held[ADAPTER])}, "upload")
            plain.commit_raw({f"{folder}/{ADAPTER_CONFIG}": held[ADAPTER_CONFIG]}, "upload")

        world.refuses(r"eve/plain is empty: no file of a model was pushed to it", *self.asked)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"base": "/etc"}, r"the adapters of eve/plain name the base /etc, a folder on another machine"),
            (
                {"base": "../../.."},
                r"the adapters of eve/plain name the base \.\./\.\./\.\., a folder on another machine",
            ),
            ({"base": "eve/gone"}, r"there is no base eve/gone on the Hub, nor a folder of that name"),
            ({"base": "builtin:../.."}, r"there is no embedded base builtin:\.\./\.\."),
            (
                {"base": RED},
                rf"{ADAPTER_CONFIG} of eve/plain, .+: base_model_name_or_path is .+, it must be one line .+",
            ),
            ({"auto_map": {"AutoModel": "evil.M"}}, rf"{ADAPTER_CONFIG} of eve/plain, .+: auto_map is an object, .+"),
            ({"peft_type": "EVIL"}, rf"{ADAPTER_CONFIG} of eve/plain, .+: peft_type is \"EVIL\", only LORA is read"),
            ({RED: 1}, rf"{ADAPTER_CONFIG} of eve/plain, .+: .+ is 1, which is not supported"),
        ],
    )
    def test_adapter_configs(self, changes: dict[str, Any], problem: str, plain: Repo, world: World) -> None:
        plain.commit({ADAPTER: b"weights", ADAPTER_CONFIG: adapter_config(**changes)}, "step 1")

        world.refuses(problem, *self.asked)

    def test_a_base_that_brings_code(self, plain: Repo, hub: LoopbackHub, world: World) -> None:
        files = {
            "config.json": json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}).encode(),
            "evil.py": b"import os; os.system('touch ran')",
            "model.safetensors": b"x",
            "pytorch_model.bin": pickle.dumps(Bomb()),
        }
        hub.create("eve/base").commit(files, "base")
        plain.commit({ADAPTER: b"weights", ADAPTER_CONFIG: adapter_config(base="eve/base")}, "step 1")

        world.refuses(r"eve/base wants to run code of its own \(auto_map in config.json\)", *self.asked)

        asked = {request.path.rpartition("/")[2] for request in hub.requests if "eve/base/resolve" in request.path}
        assert asked == {"config.json", "model.safetensors"}

    def test_a_private_one_of_somebody_else(self, hub: LoopbackHub, world: World) -> None:
        hub.create("eve/secret", private=True)

        for command in (("eval",), ("train", "--resume")):
            world.refuses(
                r"there is no repository eve/secret on the Hub, or this account may not see it",
                *command,
                "--repo",
                "eve/secret",
            )

    def test_a_gated_one(self, hub: LoopbackHub, world: World) -> None:
        gated = hub.create("eve/gated", gated=True)
        gated.commit({ADAPTER: b"weights", ADAPTER_CONFIG: adapter_config()}, "step 1")

        world.refuses(
            r"eve/gated is gated: its terms have to be accepted first",
            "eval",
            "--repo",
            "eve/gated",
            "--config",
            "mine.yaml",
        )

    @pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "eve", "eve/plain/x", f"eve/{RED}", "eve/..", ""])
    def test_a_name_that_is_none(self, name: str, hub: LoopbackHub, world: World) -> None:
        result = world.runs("eval", "--repo", name)

        assert (result.code, result.out) == (1, "")
        assert len([line for line in result.err.splitlines() if line.startswith("error:")]) == 1
