"""One YAML file is one run."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.config import AdapterConfig, DataConfig, PromptConfig, RunConfig, TrainConfig
from pricer.config_file import CONFIGS, config_path, load_config, to_yaml
from pricer.errors import ConfigError

MINE = Path("mine.yaml")


def load(text: str | bytes, *overrides: str) -> RunConfig:
    MINE.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(MINE, overrides)


def problems(text: str | bytes, *overrides: str) -> Sequence[str]:
    with pytest.raises(ConfigError) as raised:
        load(text, *overrides)
    return raised.value.problems


def hint(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(text, *overrides)
    return raised.value.hint


class TestValues:
    @pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "train:\n  # seed: 1\n", "train: null\nmodel:\n"])
    def test_what_is_not_set_has_its_default(self, text: str) -> None:
        assert load(text) == RunConfig()

    @pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "0.0001", "'1e-4'", "1E-4"])
    def test_a_number_that_yaml_reads_as_text_is_a_number(self, written: str) -> None:
        assert load(f"train: {{learning_rate: {written}}}").train.learning_rate == 0.0001

    @pytest.mark.parametrize("written", ["20000", "2e4", "20_000", "20000.0", "2.0e+4", "'20000'"])
    def test_a_count_may_be_written_like_any_whole_number(self, written: str) -> None:
        assert load(f"train: {{checkpoint_every: {written}}}").train.checkpoint_every == 20_000

    def test_a_few_lines_that_stand_for_gigabytes_are_shown_in_short(self) -> None:
        layers = ["a: &a [x, x, x, x, x, x, x, x, x]"]
        layers += [
            f"{own}: &{own} [{', '.join(9 * ['*' + inner])}]" for inner, own in zip("abcdef", "bcdefg", strict=True)
        ]
        text = "\n".join([*layers, "train: {epochs: *g}"])

        assert max(len(problem) for problem in problems(text)) < 400

    def test_module_names_are_a_list_or_all(self) -> None:
        assert load("adapter: {target_modules: [q_proj, k_proj]}").adapter.target_modules == ["q_proj", "k_proj"]
        assert load("adapter: {target_modules: all-linear}").adapter.target_modules == "all-linear"


# What follows on each problem of a setting that may also be `auto`.
OR_AUTO = ", or input should be 'auto'"


class TestProblems:
    def test_all_are_reported_at_once_each_with_its_line(self) -> None:
        text = (
            "model:\n  quantization: int8\ntrain:\n  learnin_rate: 1e-4\n  epochs: 0\n  seed: 1\n  seed: 2\ntrian: {}\n"
        )

        assert sorted(problems(text, "train.batch_size=many", "batch_size=5")) == [
            "--set takes SECTION.KEY=VALUE, not 'batch_size=5'",
            "model.quantization is 'int8': input should be 'nf4' or 'none' (mine.yaml, line 2)",
            "train.batch_size is 'many': input should be a valid integer, unable to parse string as an "
            "integer, or input should be 'auto' (--set train.batch_size=many)",
            "train.epochs is 0: input should be greater than 0, or input should be 'auto' (mine.yaml, line 5)",
            "train.learnin_rate is not a setting (mine.yaml, line 4); did you mean train.learning_rate?",
            "train.seed is given twice (mine.yaml, line 7)",
            "trian is not a section (mine.yaml, line 8); did you mean train?",
        ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("train: {batch_size: 0}", "train.batch_size is 0: input should be greater than or equal to 1" + OR_AUTO),
            ("train: {batch_size: three}", "train.batch_size is 'three': input should be a valid integer, unable to "
             "parse string as an integer" + OR_AUTO),
            ("train: {batch_size: 16.5}", "train.batch_size is 16.5: input should be a valid integer, got a number "
             "with a fractional part" + OR_AUTO),
            ("train: {batch_size: 1e400}", "train.batch_size is '1e400': input should be a finite number" + OR_AUTO),
            ("train: {batch_size: yes}", "train.batch_size is True: input should be a number" + OR_AUTO),
            ("train: {learning_rate: on}", "train.learning_rate is True: input should be a number" + OR_AUTO),
            ("train: {learning_rate: .inf}", "train.learning_rate is inf: input should be a finite number" + OR_AUTO),
            ("train: {epochs: .nan}", "train.epochs is nan: input should be a finite number" + OR_AUTO),
            ("train: {seed: -1}", "train.seed is -1: input should be greater than or equal to 0"),
            ("train: {warmup: 1}", "train.warmup is 1: input should be less than 1"),
            ("prompt: {max_length: 7}", "prompt.max_length is 7: input should be greater than or equal to 8" + OR_AUTO),
            ("model: {base: 3}", "model.base is 3: input should be a valid string"),
            ("model: {device: gpu}", "model.device is 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
            ("adapter: {target_modules: q_proj}", "adapter.target_modules is 'q_proj': input should be a valid list, "
             "or input should be 'all-linear'"),
            ("data: {val_fraction: 0.5, test_fraction: 0.5}", "data: val_fraction and test_fraction together leave "
             "nothing to train on"),
            ("train: 5", "train is 5: a section holds settings, one per line"),
            ("train: [seed]", "train is ['seed']: a section holds settings, one per line"),
        ],
    )  # fmt: skip
    def test_a_value_that_cannot_be_is_named(self, text: str, problem: str) -> None:
        assert problems(text) == [f"{problem} (mine.yaml, line 1)"]

    def test_an_unknown_setting_like_no_other_is_answered_with_those_there_are(self) -> None:
        text = "eval: {zzz: 1}"

        assert problems(text) == ["eval.zzz is not a setting (mine.yaml, line 1)"]
        assert (
            hint(text) == "eval has batch_tokens, estimator, hit_error, hit_share, residual_mass, race_budget, patience"
        )

    def test_an_unknown_section_like_no_other_is_answered_with_those_there_are(self) -> None:
        for text in ("zzz: {seed: 1}", "zzz:", "1: 2"):
            assert problems(text) == [f"{text.split(':')[0]} is not a section (mine.yaml, line 1)"]
            assert hint(text) == "sections are model, data, prompt, adapter, train, eval, hub, tracking"

    def test_a_setting_that_is_no_word_is_unknown(self) -> None:
        assert problems("train: {1: 2}") == ["train.1 is not a setting (mine.yaml, line 1)"]

    def test_a_section_that_is_given_twice_is_refused(self) -> None:
        assert problems("train:\n  epochs: 1\ntrain:\n  seed: 1\n") == ["train is given twice (mine.yaml, line 3)"]


class TestFiles:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("train: [1\n", "not YAML: expected ',' or ']', but got '<stream end>' (mine.yaml, line 2)"),
            ("train:\n\tseed: 1\n", "not YAML: found character '\\t' that cannot start any token (mine.yaml, line 2)"),
            ("? [a, b]\n: 1\n", "not YAML: found unhashable key (mine.yaml, line 1)"),
            ("# \x00", "not YAML: unacceptable character #x0000: special characters are not allowed (mine.yaml)"),
            ("!!python/object:os.system {}", "not YAML: could not determine a constructor for the tag "
             "'tag:yaml.org,2002:python/object:os.system' (mine.yaml, line 1)"),
            ("- train\n", "a config is a mapping of sections, not a list (mine.yaml)"),
            ("train", "a config is a mapping of sections, not a str (mine.yaml)"),
            (b"train:\n  seed: 1\n# caf\xe9\n", "not UTF-8 (mine.yaml, line 3)"),
        ],
    )  # fmt: skip
    def test_a_file_that_is_no_config_says_why(self, text: str | bytes, problem: str) -> None:
        assert problems(text) == [problem]

    def test_a_config_that_contains_itself_is_refused(self) -> None:
        assert problems("train: &x\n  a: *x\n") == ["train.a is not a setting (mine.yaml, line 2)"]

    def test_a_missing_file_is_answered_with_the_known_names(self) -> None:
        with pytest.raises(ConfigError) as raised:
            load_config(Path("nowhere.yaml"))

        assert raised.value.problems == ["there is no config nowhere.yaml"]
        assert raised.value.hint.startswith("known by name: ")
        assert "quickstart" in raised.value.hint

    @pytest.mark.parametrize("name", ["ok.csv", "my items.JSONL", "a.tsv.gz", "a.parquet"])
    def test_data_in_place_of_a_config_is_answered_with_init(self, name: str) -> None:
        Path(name).write_text("description,price\n", encoding="utf-8")

        with pytest.raises(ConfigError) as raised:
            load_config(Path(name))

        assert raised.value.problems == [f"{name} is data, not a config"]
        assert raised.value.hint == f"pricer init {shlex.quote(name)}"

    def test_a_folder_is_no_config(self) -> None:
        with pytest.raises(ConfigError, match=r"^. cannot be read: Is a directory$"):
            load_config(Path())

    def test_a_name_means_a_config_that_comes_with_pricer_unless_there_is_such_a_file(self) -> None:
        assert config_path("quickstart") == CONFIGS / "quickstart.yaml"
        assert config_path("mine.yaml") == Path("mine.yaml")

        Path("quickstart").touch()

        assert config_path("quickstart") == Path("quickstart")


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "section", "key", "value"),
        [
            ("train.seed=7", "train", "seed", 7),
            (" train.seed = 7", "train", "seed", 7),
            ("train.learning_rate=1e-5", "train", "learning_rate", 1e-5),
            ("train.activation_checkpointing=true", "train", "activation_checkpointing", True),
            ("data.title=", "data", "title", None),
            ("data.title=null", "data", "title", None),
            ("data.source=a=b.csv", "data", "source", "a=b.csv"),
            ("prompt.question='Cost: what?'", "prompt", "question", "Cost: what?"),
            ("adapter.target_modules=[q_proj, k_proj]", "adapter", "target_modules", ["q_proj", "k_proj"]),
        ],
    )
    def test_an_override_sets_one_setting(self, override: str, section: str, key: str, value: Any) -> None:
        config = load("train: {epochs: 2}\ndata: {title: name}\n", override)

        assert getattr(getattr(config, section), key) == value
        assert config.train.epochs == 2

    def test_an_override_replaces_what_the_file_says_even_where_that_is_wrong(self) -> None:
        assert load("train: {seed: x}", "train.seed=3").train.seed == 3

    def test_the_last_of_two_overrides_counts(self) -> None:
        assert load("", "train.seed=3", "train.seed=4").train.seed == 4

    def test_an_override_fills_a_section_that_is_empty_or_absent(self) -> None:
        for text in ("", "train:\n"):
            assert load(text, "train.seed=3").train.seed == 3

    @pytest.mark.parametrize("override", ["seed=7", "train.seed", "train=5", "=7", "train.=7", ".seed=7", ""])
    def test_another_form_is_refused(self, override: str) -> None:
        assert problems("", override) == [f"--set takes SECTION.KEY=VALUE, not {override!r}"]

    @pytest.mark.parametrize("value", ["[1", "a: b: c", "2024-13-01"])
    def test_a_value_that_is_no_yaml_is_refused(self, value: str) -> None:
        override = f"train.seed={value}"

        assert problems("", override) == [f"{value!r} cannot be read as YAML (--set {override})"]
        assert hint("", override) == ""

    def test_a_problem_names_the_override_it_comes_from(self) -> None:
        assert problems("train: {seed: 1}", "train.seed=a", "zzz.a=1", "train.learnin_rate=1") == [
            "train.seed is 'a': input should be a valid integer, unable to parse string as an integer "
            "(--set train.seed=a)",
            "train.learnin_rate is not a setting (--set train.learnin_rate=1); did you mean train.learning_rate?",
            "zzz is not a section (--set zzz.a=1)",
        ]


class TestWriting:
    def test_every_setting_is_written(self) -> None:
        assert load(to_yaml(RunConfig())) == RunConfig()
        assert "learning_rate: 0.0001\n" in to_yaml(RunConfig(train=TrainConfig(learning_rate=1e-4)))

    @given(
        question=st.text(alphabet="aé:#\"\\'{}&* \n\r\t\u2028\ufeff😀0"),
        title=st.none() | st.sampled_from(["", "null", "yes", "1e3", "~", "2024-01-01", "é"]),
        learning_rate=st.floats(1e-12, 1.0),
        seed=st.integers(0, 2**32 - 1),
        modules=st.just("all-linear") | st.lists(st.sampled_from(["q_proj", "no", "1"]), min_size=1),
    )
    def test_a_config_reads_back_as_it_was_written(
        self, question: str, title: str | None, learning_rate: float, seed: int, modules: Any
    ) -> None:
        config = RunConfig(
            data=DataConfig(title=title),
            prompt=PromptConfig(question=question),
            adapter=AdapterConfig(target_modules=modules),
            train=TrainConfig(learning_rate=learning_rate, seed=seed),
        )

        assert load(to_yaml(config)) == config
