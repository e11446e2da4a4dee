"""Tokens are not shown and not written, whichever way they come in."""

from pathlib import Path

import pytest
import typer.testing

from pricer.cli import app
from pricer.commands import doctor
from pricer.commands.doctor import Check
from pricer.config_file import load_config
from pricer.core.machine_checks import Finding
from pricer.errors import ConfigError, PricerError
from pricer.redaction import hub_address, redact, token_in, without_password
from pricer.views import terminal, terminal_progress

# Put together here, so that no scanner takes this file for a leak.
HF = "hf" + "_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
WANDB = "wandb" + "_v1_" + "aB3dE6gH9jK2mN5p_Q8sT1vW4yZ7"
OPENAI = "sk" + "-proj-" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
GITHUB = "ghp" + "_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
GITHUB_FINE = "github" + "_pat_" + "aB3dE6gH9jK2_mN5pQ8sT1vW4yZ7"
COMMIT = "0a1b2c3d4e" * 4
HINT = "a token belongs in the environment (HF_TOKEN, WANDB_API_KEY), or to hf auth login or wandb login"


def problems(text: str, *overrides: str) -> list[str]:
    Path("mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_config(Path("mine.yaml"), overrides)
    assert raised.value.hint == HINT
    return raised.value.problems


class TestRedact:
    @pytest.mark.parametrize("token", [HF, WANDB, OPENAI, GITHUB, GITHUB_FINE])
    def test_what_looks_like_a_token_is_replaced(self, token: str) -> None:
        assert redact(f"401 for https://user:{token}@host, '{token}'") == "401 for https://user:***@host, '***'"
        assert token_in(token)

    def test_a_bearer_keeps_its_word(self) -> None:
        assert redact("Authorization: Bearer " + "a1.b2-c3d4, again") == "Authorization: Bearer ***, again"

    @pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"])
    def test_the_tokens_of_the_environment_are_replaced_whatever_they_look_like(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert redact(COMMIT) == COMMIT

        monkeypatch.setenv(name, COMMIT + "\n")

        assert redact(f"key {COMMIT}!") == "key ***!"

    def test_one_that_begins_like_another_is_replaced_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "correct horse")
        monkeypatch.setenv("WANDB_API_KEY", "correct horse battery")

        assert redact("correct horse battery, correct horse") == "***, ***"

    @pytest.mark.parametrize("value", ["", "short"])
    def test_a_short_one_is_a_word_like_any_other(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", value)

        assert redact("a short text") == "a short text"

    @pytest.mark.parametrize(
        "text",
        [
            COMMIT,
            "meta-llama/Llama-3.2-3B",
            "half_precision_and_more_of_it",
            "hf_hub_download",
            "sk-learn-compatible-estimators",
            "desk-0123456789012345678901234",
            "the bearer responsible",
        ],
    )
    def test_other_words_stay(self, text: str) -> None:
        assert redact(text) == text
        assert not token_in(text)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"https://ann:{COMMIT}@host:8080/path?a=b", "https://host:8080/path?a=b"),
        ("https://a@b@host", "https://host"),
        ("https://huggingface.co", "https://huggingface.co"),
        ("no address", "no address"),
        ("me:hunter2secret@hub.example.com", "hub.example.com"),
        ("me:hunter2@secret@hub.example.com/a", "hub.example.com/a"),
        ("http://me:hunter2secret@[::1", "[::1"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert without_password(address) == shown


class TestConfig:
    @pytest.mark.parametrize(
        ("text", "setting", "line"),
        [
            (f"model:\n  base: {HF}\n", "model.base", 2),
            (f"model: {{base: '{HF}', revision: main}}\n", "model.base", 1),
            (f"data:\n  source: https://user:{HF}@host/x.csv\n", "data.source", 2),
            (f"prompt:\n  question: >\n    How\n    much, {HF}?\n", "prompt.question", 2),
            (f"adapter:\n  target_modules:\n    - q_proj\n    - {HF}\n", "adapter.target_modules", 4),
            (f"hub:\n  tokn: {HF}\n", "hub.tokn", 2),
            (f"login: {HF}\n", "login", 1),
            (f"train:\n  a: {{b: [{{c: {HF}}}]}}\n", "train.a.b.c", 2),
            (f"{HF}: 1\n", "***", 1),
            (f"train:\n  {HF}: 1\n", "train.***", 2),
        ],
    )
    def test_a_token_in_a_file_is_named_by_its_place(self, text: str, setting: str, line: int) -> None:
        assert problems(text) == [f"{setting} holds a token (mine.yaml, line {line})"]

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            (f"model.base={HF}", "model.base holds a token (--set model.base=***)"),
            (f" model.base = '{HF}'", "model.base holds a token (--set model.base=***)"),
            (f"adapter.target_modules=[a, {HF}]", "adapter.target_modules holds a token "
             "(--set adapter.target_modules=***)"),
            (f"hub.tokn=[{HF}", "hub.tokn holds a token (--set hub.tokn=***)"),
            (f"model.{HF}=1", "model.*** holds a token (--set model.***=***)"),
            (HF, "*** holds a token (--set ***)"),
        ],
    )  # fmt: skip
    def test_a_token_in_an_override_is_not_echoed(self, override: str, problem: str) -> None:
        assert problems("", override) == [problem]

    def test_all_are_named_and_nothing_else_is(self) -> None:
        text = f"model:\n  base: {HF}\n  revision: {GITHUB}\ntrain: {{epochs: many}}\n"

        assert problems(text, f"data.source={WANDB}") == [
            "model.base holds a token (mine.yaml, line 2)",
            "model.revision holds a token (mine.yaml, line 3)",
            "data.source holds a token (--set data.source=***)",
        ]

    def test_a_commit_is_a_token_only_where_the_environment_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("mine.yaml").write_text(f"model: {{revision: {COMMIT}}}", encoding="utf-8")
        assert load_config(Path("mine.yaml")).model.revision == COMMIT

        monkeypatch.setenv("WANDB_API_KEY", COMMIT)

        assert problems(f"model: {{revision: {COMMIT}}}") == ["model.revision holds a token (mine.yaml, line 1)"]

    def test_a_file_that_is_no_yaml_shows_none(self) -> None:
        Path("mine.yaml").write_text(f"model: *{HF}", encoding="utf-8")

        with pytest.raises(ConfigError) as raised:
            load_config(Path("mine.yaml"))

        assert raised.value.problems == ["not YAML: found undefined alias '***' (mine.yaml, line 1)"]

    def test_a_few_lines_that_stand_for_gigabytes_are_looked_through_once(self) -> None:
        layers = [f"a: &a [{HF}]"]
        layers += [
            f"{own}: &{own} [{', '.join(9 * ['*' + inner])}]"
            for inner, own in zip("abcdefghijk", "bcdefghijkl", strict=True)
        ]

        assert problems("\n".join(layers)) == ["a holds a token (mine.yaml, line 1)"]


class TestDisplay:
    def test_errors_hints_and_notes_show_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.error(PricerError(f"refused: {HF}", f"not {WANDB}"))
        terminal.note(f"using {GITHUB}")
        terminal_progress.Watcher().note(f"tracking stopped: {OPENAI}")

        assert capsys.readouterr().err == "error: refused: ***\n hint: not ***\nusing ***\ntracking stopped: ***\n"


class TestCommandLine:
    def run(self, *arguments: str) -> tuple[int, str, str]:
        result = typer.testing.CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.stdout, result.stderr

    def test_an_override(self) -> None:
        assert self.run("train", "--set", f"model.base={HF}") == (
            1,
            "",
            f"error: model.base holds a token (--set model.base=***)\n hint: {HINT}\n",
        )
        assert not Path("runs").exists()

    def test_a_file(self) -> None:
        Path("mine.yaml").write_text(f"hub:\n  token: {HF}\n", encoding="utf-8")

        assert self.run("train", "mine.yaml", "--dry-run") == (
            1,
            "",
            f"error: hub.token holds a token (mine.yaml, line 2)\n hint: {HINT}\n",
        )

    def test_what_a_library_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", COMMIT)

        def refused(*_: object) -> None:
            raise ValueError(f"401 Unauthorized: key {COMMIT}, header Bearer {HF}")

        monkeypatch.setattr("pricer.commands.pick.pick", refused)

        assert self.run("pick") == (
            1,
            "",
            "error: unexpected ValueError: 401 Unauthorized: key ***, header Bearer ***\n"
            " hint: PRICER_DEBUG=1 shows where; please report it\n",
        )

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_what_the_doctor_quotes(self, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
        def quoting() -> list[Finding]:
            return [Finding("Hub", "warning", f"refused: {HF}", f"not {WANDB}")]

        def raising() -> list[Finding]:
            raise ValueError(f"Bearer {GITHUB}")

        monkeypatch.setattr(doctor, "CHECKS", (Check("Hub", quoting), Check("W&B", raising)))

        code, out, err = self.run("doctor", *options)

        assert (code, err) == (0, "")
        assert "refused: ***" in out
        assert "not ***" in out
        assert "ValueError: Bearer ***" in out
        assert all(token not in out for token in (HF, WANDB, GITHUB))

    def test_a_config_of_that_name(self) -> None:
        assert self.run("train", HF)[2].startswith("error: there is no config ***\n")


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        (None, "https://huggingface.co/ann/prices"),
        ("", "https://huggingface.co/ann/prices"),
        ("https://hub.example.com/", "https://hub.example.com/ann/prices"),
        ("https://ann:secret@hub.example.com:8443", "https://hub.example.com:8443/ann/prices"),
    ],
)
def test_a_repository_is_shown_at_the_endpoint_without_a_password(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, address: str
) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if endpoint is not None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)

    assert hub_address("ann/prices") == address
