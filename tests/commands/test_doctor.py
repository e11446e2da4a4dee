"""`pricer doctor`: every line, the verdict and its exit code, on machines that are whole, bare and broken."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import typer.testing

from pricer.cli import app
from pricer.commands import doctor
from pricer.commands.doctor import Check, ask_probe
from pricer.core.machine_checks import Finding, Package
from tests.loopback_hub import LoopbackHub

RUNNER = typer.testing.CliRunner()
TORCH = [Finding("GPU", "ok", "Tesla T4"), Finding("4-bit product", "ok", "right on the GPU in float16, to 5e-04")]


def raising() -> list[Finding]:
    raise RuntimeError("the driver\nis gone")


def checks(monkeypatch: pytest.MonkeyPatch, **changed: Callable[[], Iterable[Finding]]) -> None:
    """The real checks, but for those that are `changed`, by name."""
    replaced = [replace(c, look=changed.get(c.name, c.look)) for c in doctor.CHECKS]
    monkeypatch.setattr(doctor, "CHECKS", tuple(replaced))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, 30 GB of memory and 100 GB of disk, whose packages are as tested."""
    checks(monkeypatch, torch=lambda: TORCH)
    tested = [Package("torch", "2.13.0", "2.13.0"), Package("peft", "0.21.2", "0.21.2")]
    monkeypatch.setattr("pricer.stores.machine.packages", lambda: tested)
    monkeypatch.setattr("pricer.stores.machine.python", lambda: ("3.12.1", ">=3.11", True))
    monkeypatch.setattr("pricer.stores.machine.memory", lambda: (30_000_000_000, 32_000_000_000))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100_000_000_000}))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for name in ("WANDB_API_KEY", "WANDB_SERVICE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def run(*options: str) -> tuple[int, list[str]]:
    result = RUNNER.invoke(app, ["doctor", *options])
    assert result.stderr == ""
    return result.exit_code, result.stdout.splitlines()


class TestCommand:
    def test_a_machine_that_is_online_and_logged_in(
        self, machine: None, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "0a1b2c3d4e" * 4)

        code, lines = run()

        assert lines.pop(-3).startswith("clock          OK       within ")
        assert lines == [
            "python         OK       3.12.1 on Linux x86_64, pricer 0.1.0",
            "packages       OK       all 2 as tested together, torch 2.13.0",
            "GPU            OK       Tesla T4",
            "4-bit product  OK       right on the GPU in float16, to 5e-04",
            "memory         OK       30.0 GB of 32.0 GB available",
            f"disk           OK       100.0 GB free for {Path.cwd()}/runs",
            f"Hub cache      OK       100.0 GB free for {Path.cwd()}/.home/huggingface/hub",
            f"Hub            OK       {hub.url} answers",
            "Hub login      OK       ann, token of role write",
            "W&B            OK       a key for http://127.0.0.1:9 is there (not tried): tracking.mode auto is online",
            "training can work here",
        ]
        assert code == 0
        assert not Path("runs").exists()

    def test_a_missing_package_and_a_full_disk_are_named_in_the_verdict(
        self, machine: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        missing = [Package("peft", None, "0.21.2")]
        monkeypatch.setattr("pricer.stores.machine.packages", lambda: missing)
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 20_000_000}))

        code, lines = run()

        assert code == 1
        assert lines[1] == "packages       FAILED   missing: peft → pip install peft==0.21.2"
        assert lines[5] == (
            f"disk           FAILED   0.0 GB free for {Path.cwd()}/runs"
            " → make room, or start pricer in a folder on another disk"
        )
        assert lines[-1] == "training cannot work here: packages, disk"

    def test_one_of_several_processes_fails_as_training_does(
        self, machine: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "4")

        code, lines = run()

        assert code == 1
        assert lines[2] == (
            "launcher       FAILED   a launcher started 4 processes (WORLD_SIZE), which cannot find each other"
            " → torchrun --nproc-per-node 4 -m -- pricer train"
        )
        assert lines[-1] == "training cannot work here: launcher"

    def test_an_endpoint_that_is_no_address_is_one_line(self, machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://ann:secret-word@[::1")

        code, lines = run()

        assert code == 1
        assert [line for line in lines if "FAILED" in line or "could not" in line] == [
            "HF_ENDPOINT    FAILED   HF_ENDPOINT=[::1 is no address: Invalid IPv6 URL"
            " → unset HF_ENDPOINT, or set it to one like https://huggingface.co"
        ]
        assert lines[-1] == "training cannot work here: HF_ENDPOINT"

    def test_pricer_that_is_not_installed_fails(self, machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pricer.stores.machine.is_installed", lambda: False)

        code, lines = run()

        assert code == 1
        assert lines[1] == (
            "packages       FAILED   pricer itself is not installed, so its requirements are unknown"
            " → pip install -e . -c constraints.txt, in its folder"
        )

    def test_json_says_the_same(self, machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
        checks(monkeypatch, torch=lambda: [Finding("4-bit product", "failed", "wrong on the GPU", "another version")])

        code, lines = run("--json")

        record = json.loads("\n".join(lines))
        assert (code, record["fit"]) == (1, False)
        assert [check["name"] for check in record["checks"]] == [
            *("python", "packages", "4-bit product", "memory", "disk", "Hub cache", "Hub", "Hub login", "clock", "W&B")
        ]
        assert record["checks"][2] == {
            "name": "4-bit product",
            "status": "failed",
            "text": "wrong on the GPU",
            "hint": "another version",
        }

    def test_a_check_that_nobody_foresaw_is_a_line_and_the_next_goes_on(
        self, machine: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        report = "if all packages are as tested: please report it, with this output"
        checks(monkeypatch, **{check.name: raising for check in doctor.CHECKS})

        code, lines = run()

        said = f"could not be checked: RuntimeError: the driver → {report}"
        assert lines == [
            f"python         warning  {said}",
            f"packages       FAILED   {said}",
            f"launcher       FAILED   {said}",
            f"HF_ENDPOINT    FAILED   {said}",
            f"torch          FAILED   {said}",
            f"memory         warning  {said}",
            f"disk           FAILED   {said}",
            f"Hub cache      warning  {said}",
            f"Hub            warning  {said}",
            f"W&B            warning  {said}",
            "training cannot work here: packages, launcher, HF_ENDPOINT, torch, disk",
        ]
        assert code == 1

    def test_what_a_stranger_says_stays_on_its_line_and_does_nothing_to_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "CHECKS", (Check("Hub", lambda: [Finding("Hub", "ok", "ann\n\x1b[2Jtraining")]),))

        assert run() == (0, ["Hub            OK       ann \\x1b[2Jtraining", "training can work here"])

    def test_a_real_one_of_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # wandb's service has tests of its own.
        checks(monkeypatch, **{"W&B": list})

        code, lines = run("--json")

        found = {check["name"]: check["status"] for check in json.loads("\n".join(lines))["checks"]}
        assert code == 0
        assert {"4-bit product", "libraries", "driver", "disk"} <= set(found)
        assert (found["4-bit product"], found["libraries"]) == ("ok", "ok")


class TestProcess:
    """The process that looks at torch, with another package in pricer's place there."""

    def stand_in(self, monkeypatch: pytest.MonkeyPatch, *body: str, before: str = "") -> None:
        folder = Path("stand-in/pricer/ml")
        folder.mkdir(parents=True)
        for init in (folder / "__init__.py", folder.parent / "__init__.py"):
            init.write_text("", encoding="utf-8")
        main = ["import json, os, sys, time", before, "def main(steps):", *(f"    {line}" for line in body), ""]
        (folder / "probe.py").write_text("\n".join(main), encoding="utf-8")
        monkeypatch.syspath_prepend(str(Path("stand-in").absolute()))

    SAY = "def say(**record): print(json.dumps(record), flush=True)"

    def test_one_that_is_killed_costs_one_line_and_the_rest_is_asked_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.stand_in(
            monkeypatch,
            "for step in steps:",
            "    say(step=step)",
            "    if step == 'driver': os.kill(os.getpid(), 11)",
            "    say(name=step, status='ok', text=f'{len(steps)} steps', hint='')",
            "say(step='')",
            before=self.SAY,
        )

        assert list(ask_probe(("GPU", "driver", "4-bit product", "libraries"))) == [
            Finding("GPU", "ok", "4 steps"),
            Finding("driver", "failed", "the check did not finish: killed by SIGSEGV"),
            Finding("4-bit product", "ok", "2 steps"),
            Finding("libraries", "ok", "2 steps"),
        ]

    def test_one_that_hangs_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stand_in(
            monkeypatch,
            "say(step=steps[0])",
            "if len(steps) == 2: time.sleep(600)",
            "say(name=steps[0], status='ok', text='fine', hint='')",
            "say(step='')",
            before=self.SAY,
        )

        assert list(ask_probe(("GPU", "driver"), timeout=5)) == [
            Finding("GPU", "failed", "the check did not finish: no answer in 5 s"),
            Finding("driver", "ok", "fine"),
        ]

    def test_what_libraries_say_in_between_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stand_in(
            monkeypatch,
            "print('loading', 3, '[]', sep='\\n'); print('{}', '{\"name\": 3}', 'null', sep='\\n')",
            "sys.stderr.write('a warning')",
            "say(step='GPU')",
            "say(name='GPU', status='ok', text='fine', hint='')",
            "say(step='')",
            "os._exit(3)  # a driver that fails while the process ends",
            before=self.SAY,
        )

        assert list(ask_probe(("GPU",))) == [Finding("GPU", "ok", "fine")]

    def test_torch_that_cannot_be_imported_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stand_in(monkeypatch, "pass", before="import no_such_torch")

        assert list(ask_probe(("GPU", "driver"))) == [
            Finding(
                "torch",
                "failed",
                "torch or bitsandbytes cannot be imported: ModuleNotFoundError: No module named 'no_such_torch'",
                "if both are as tested: please report it, with this output",
            )
        ]

    def test_a_gpu_is_looked_at_where_bitsandbytes_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("stand-in").mkdir()
        error = 'raise ModuleNotFoundError("No module named \'bitsandbytes\'", name="bitsandbytes")\n'
        (Path("stand-in") / "bitsandbytes.py").write_text(error, encoding="utf-8")
        monkeypatch.setattr(sys, "path", [str(Path("stand-in").absolute()), *sys.path])

        gpu, *product = ask_probe(("GPU", "4-bit product"))

        assert gpu.status in ("ok", "warning")
        assert product[-1] == Finding(
            *("4-bit product", "failed"),
            "could not be checked: ModuleNotFoundError: No module named 'bitsandbytes'",
            "pip install bitsandbytes",
        )
