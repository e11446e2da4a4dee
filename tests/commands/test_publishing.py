"""What a pick leaves in a repository: people who load it with the usual lines get the picked adapter, and its card."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets  # noqa: F401 (the fixture `hub` points it at the hub)
import numpy as np
import peft
import pytest
import torch
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, parse_eval_result_entries
from safetensors.torch import load
from transformers import AutoModelForCausalLM

from pricer.commands.parts.model_card import card_pages
from pricer.commands.parts.publishing import publish_recorded
from pricer.config import DataConfig, PromptConfig, RunConfig
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.selection import select
from pricer.errors import RunError
from pricer.stores.bases import ASSETS
from pricer.stores.runs import Run
from tests.builders import a_run, an_evaluation
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.repositories import ADAPTER, Cli

Loaded = dict[str, torch.Tensor]
THEIRS = b"# Model Card for Model ID\n"


def _lower(run: Run, evaluation: Evaluation, share: float) -> None:
    """Let an evaluation have this share of its error, in every item and in its MAE."""
    assert evaluation.candidate.id is not None
    scores = run.evaluations.scores(evaluation.candidate.id, evaluation.spec)
    assert scores is not None
    imputed = scores.price + share * (scores.imputed - scores.price)
    mae = replace(evaluation.metric("mae"), value=float(np.abs(imputed - scores.price).mean()))
    changed = replace(evaluation, metrics=(mae, *(m for m in evaluation.metrics if m.name != "mae")))
    run.evaluations.add(evaluation.candidate.id, changed, replace(scores, imputed=imputed))


def score(repo: str, best: int, *config: str) -> Run:
    """A run here of a repository whose checkpoint at the step `best` has the lowest error by far."""
    Cli("eval", "--repo", repo, "--all-checkpoints", *config, "--json").json()
    run = Run(Path("runs") / repo.replace("/", "--"))
    _lower(run, next(e for e in run.evaluations.all() if e.candidate.step == best), 0.01)
    return run


def adapter_of(model: peft.PeftModel) -> Loaded:
    return {name: weight.detach().cpu() for name, weight in peft.get_peft_model_state_dict(model).items()}


def is_same(one: Loaded, other: Loaded) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def card_of(repo: Repo) -> str:
    return repo.files()["README.md"].decode()


def short_form(repo: Repo) -> str:
    """The first code of the card, which is what people copy."""
    return str(re.findall(r"^```python\n(.*?)^```$", card_of(repo), re.DOTALL | re.MULTILINE)[0])


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    """The config for another trainer's adapters."""
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  train_limit: 48\n  val_limit: 6\n  test_limit: 6\n")
    return ["--config", str(path)]


@pytest.mark.usefixtures("scorer")
class TestLoaders:
    def test_peft_gets_the_picked_adapter_without_a_revision(self, pushed: Repo) -> None:
        score("ann/prices", 4)
        base = AutoModelForCausalLM.from_pretrained(ASSETS / "base")
        last = adapter_of(peft.PeftModel.from_pretrained(base, "ann/prices"))

        assert Cli("pick", "--repo", "ann/prices").code == 0

        base = AutoModelForCausalLM.from_pretrained(ASSETS / "base")
        found = adapter_of(peft.PeftModel.from_pretrained(base, "ann/prices"))
        assert is_same(found, load(pushed.files("step-000004")[ADAPTER]))
        assert is_same(last, load(pushed.files("step-000006")[ADAPTER]))

    def test_the_first_code_of_the_card_loads_it(self, pushed: Repo) -> None:
        score("ann/prices", 4)
        assert Cli("pick", "--repo", "ann/prices").code == 0

        names: dict[str, Any] = {}
        exec(short_form(pushed), names)

        assert is_same(adapter_of(names["model"]), load(pushed.files("step-000004")[ADAPTER]))

    def test_of_another_trainers_repository_too_with_a_base_on_the_hub(self, saves: Repo, mine: list[str]) -> None:
        saves.commit({}, "no card", delete=["README.md"])
        second = saves.files(next(commit.hash for commit in saves.commits() if commit.title.endswith("step 4")))
        score("ann/saves", 4, *mine)

        assert Cli("pick", "--repo", "ann/saves").code == 0

        auto = peft.AutoPeftModelForCausalLM.from_pretrained("ann/saves")
        names: dict[str, Any] = {}
        exec(short_form(saves), names)
        for model in (auto, names["model"]):
            assert is_same(adapter_of(model), load(second[ADAPTER]))
        assert len(ast.parse(short_form(saves)).body) == 2
        # It can be scored again: the commit is no step and no epoch.
        again = Cli("eval", "--repo", "ann/saves", "--all-checkpoints", "--json").json()
        assert [e["candidate"]["step"] for e in again["evaluations"] if e["candidate"]["step"]] == [2, 4, 6]


@pytest.mark.usefixtures("scorer")
class TestMain:
    def test_everything_is_one_commit_that_keeps_the_record_of_the_run(self, pushed: Repo, hub: LoopbackHub) -> None:
        before = pushed.files()
        run = score("ann/prices", 4)
        commits = len(pushed.commits())

        assert Cli("pick", "--repo", "ann/prices").code == 0

        after = pushed.files()
        assert len(pushed.commits()) == commits + 1
        assert (after["run.json"], after["config.yaml"]) == (before["run.json"], before["config.yaml"])
        assert {name for name in after if after[name] != before.get(name)} == {"README.md", ADAPTER, "manifest.json"}
        assert any(request.path == "/api/validate-yaml" and request.status == 200 for request in hub.requests)
        # Whoever knows nothing of the run scores and prices as before.
        assert run.config().hub.repo == "ann/prices"
        assert Cli("predict", "--repo", "ann/prices", "486DX2, 66 MHz", "--json").code == 0

    def test_picking_again_changes_nothing(self, pushed: Repo) -> None:
        score("ann/prices", 4)
        Cli("pick", "--repo", "ann/prices")
        before = pushed.commits()

        result = Cli("pick", "--repo", "ann/prices")

        assert (result.code, pushed.commits()) == (0, before)

    def test_a_readme_that_somebody_wrote_stays_and_the_adapter_is_the_pick(
        self, pushed: Repo, hub: LoopbackHub
    ) -> None:
        score("ann/prices", 4)
        pushed.commit({"README.md": THEIRS}, "my own words")

        result = Cli("pick", "--repo", "ann/prices")

        assert pushed.files()["README.md"] == THEIRS
        assert pushed.files()[ADAPTER] == pushed.files("step-000004")[ADAPTER]
        assert "the README.md of ann/prices is left as it is, because it is not by pricer" in result.err
        assert f"tag best and main: {hub.url}/ann/prices" in result.err
        assert result.code == 0

    def test_what_the_hub_could_not_take_then_is_published_later(self, pushed: Repo, hub: LoopbackHub) -> None:
        run = score("ann/prices", 4)
        hub.faults.script("POST", "/tag/", [Fault.status(404)])
        failed = Cli("pick", "--repo", "ann/prices")
        assert (failed.code, "best" in pushed.tags) == (1, False)

        published = publish_recorded(run)

        assert published is not None
        assert published.is_on_main
        assert pushed.tags["best"] == pushed.tags["step-000004"]
        assert pushed.files()[ADAPTER] == pushed.files("step-000004")[ADAPTER]
        assert "**4 (chosen)**" in card_of(pushed)

    def test_a_pick_whose_evaluations_are_gone_is_to_be_made_again(self, pushed: Repo) -> None:
        run = score("ann/prices", 4)
        Cli("pick", "--repo", "ann/prices")
        for path in run.folder.glob("evaluations/*/evaluation.json"):
            path.unlink()

        with pytest.raises(RunError, match="the evaluation of step-000004, which the pick compared, is gone"):
            publish_recorded(run)

    def test_without_a_pick_there_is_nothing_to_publish(self, pushed: Repo) -> None:
        assert publish_recorded(score("ann/prices", 4)) is None


@pytest.mark.usefixtures("scorer")
def test_training_that_goes_on_after_a_pick_leaves_the_pick_on_main(stopped: Repo) -> None:
    score("ann/stopped", 2)
    assert Cli("pick", "--repo", "ann/stopped").code == 0
    card = card_of(stopped)

    assert Cli("train", "--resume", "--repo", "ann/stopped").code == 0

    assert stopped.tags["best"] == stopped.tags["step-000002"] != stopped.tags["step-000006"]
    assert stopped.files()[ADAPTER] == stopped.files("step-000002")[ADAPTER]
    assert stopped.files()["manifest.json"] == stopped.files("step-000002")["manifest.json"]
    assert stopped.files("step-000006")[ADAPTER] != stopped.files("step-000002")[ADAPTER]
    assert card_of(stopped) == card


@pytest.mark.usefixtures("scorer")
class TestAnotherTrainer:
    def test_a_readme_of_theirs_leaves_main_as_it_is_and_the_pick_says_how_to_load_it(
        self, saves: Repo, mine: list[str]
    ) -> None:
        assert "README.md" in saves.files()  # the Trainer writes one
        score("ann/saves", 4, *mine)
        before = saves.commits()

        result = Cli("pick", "--repo", "ann/saves")

        assert (result.code, saves.commits()) == (0, before)
        commit = saves.tags["best"]
        assert "tag best: http" in result.err
        assert (
            "main of ann/saves is left as it is, because its README.md is not by pricer; the pick has "
            f'revision="{commit}"' in " ".join(result.err.split())
        )
        assert f'revision="{commit}"' in Cli("pick", "--repo", "ann/saves", "--json").json()["left"]

    def test_the_card_states_none_of_our_settings(self, saves: Repo, mine: list[str]) -> None:
        saves.commit({}, "no card", delete=["README.md"])
        score("ann/saves", 4, *mine)
        assert Cli("pick", "--repo", "ann/saves").code == 0

        card = " ".join(card_of(saves).split())

        assert "Made by another trainer. Its settings are not known here." in card
        assert not re.search(r"learning rate|dropout|epochs|seed|Trained with", card)
        assert "pricer eval --repo ann/saves --checkpoint best --config CONFIG.yaml" in card
        # A card of ours is written again.
        assert Cli("pick", "--repo", "ann/saves", "--metric", "rmsle").code == 0
        assert "manifest.json" not in saves.files()


class TestADataSetOnTheHub:
    """A data set of its own splits, and one whose splits are ours."""

    def results(self, pages: Mapping[str, bytes]) -> Sequence[EvalResult]:
        """The results in the metadata of the card."""
        data = ModelCard(pages["README.md"].decode()).data
        assert isinstance(data, ModelCardData)
        return data.eval_results or []

    def entries(self, pages: Mapping[str, bytes]) -> Sequence[EvalResultEntry]:
        """The results of the other format."""
        return parse_eval_result_entries(yaml.safe_load(pages[".eval_results/pricer.yaml"]))

    def pages(self, *splits: str, hub: LoopbackHub, test: bool = True, **settings: Any) -> dict[str, bytes]:
        row, prompt = b"description,price\na lamp,12\n", PromptConfig(max_length=128)
        made = hub.create("ann/lamps", kind="dataset").commit({f"{name}.csv": row for name in splits})
        spec = an_evaluation(200, 1.0).spec
        on_val = [an_evaluation(100, 50.0), an_evaluation(200, 40.0)]
        on_test = [an_evaluation(200, 44.0, spec=replace(spec, split=Split.TEST), n=60)] if test else []
        data = DataConfig(source="ann/lamps", revision=made.hash, **settings)
        run = a_run([100, 200], [*on_val, *on_test], config=RunConfig(data=data, prompt=prompt))
        chosen = run.store.checkpoints()[1].at("c0de" * 10)
        return card_pages(run, "ann/prices", chosen, select(on_val, "mae"), 0)

    def test_a_split_of_its_own_has_its_own_name(self, hub: LoopbackHub) -> None:
        pages = self.pages("train", "validation", "test", hub=hub)

        assert described(self.results(pages)) == {
            ("test", "60 items of the data set's own split test"),
            ("validation", "50 items of the data set's own split validation"),
        }
        assert b"on 60 items of the data set's own split `test`" in pages["README.md"]
        assert b"\ndatasets:\n- ann/lamps\n" in pages["README.md"]

    def test_a_split_that_is_ours_has_no_name(self, hub: LoopbackHub) -> None:
        pages = self.pages("train", hub=hub)

        words = "60 test items, which pricer held out by a hash of their texts"
        assert described(self.results(pages)) == {(None, words)}
        assert "split: test" not in pages["README.md"].decode()
        assert {entry.dataset_id for entry in self.entries(pages)} == {"ann/lamps"}
        assert all((entry.notes or "").endswith(f"; {words}") for entry in self.entries(pages))
        assert {entry.task_id: entry.value for entry in self.entries(pages)}["price-mae"] == 44.0

    def test_an_own_test_split_beside_validation_items_of_ours(self, hub: LoopbackHub) -> None:
        pages = self.pages("train", "test", hub=hub)

        assert described(self.results(pages)) == {
            ("test", "60 items of the data set's own split test"),
            (None, "50 validation items, which pricer held out by a hash of their texts"),
        }

    @pytest.mark.parametrize("settings", [{"keep_splits": False}, {"split_column": "part"}, {"val_source": "v.csv"}])
    def test_splits_that_the_config_makes_have_no_name(self, hub: LoopbackHub, settings: dict[str, Any]) -> None:
        pages = self.pages("train", "validation", "test", hub=hub, **settings)

        assert {split for split, _ in described(self.results(pages))} == {None}

    @pytest.mark.parametrize("trained", [["train", "val"], ["test"]])
    def test_a_split_that_was_divided_because_the_other_was_trained_on_has_no_name(
        self, hub: LoopbackHub, trained: list[str]
    ) -> None:
        pages = self.pages("train", "validation", "test", hub=hub, trained_splits=trained)

        assert described(self.results(pages)) == {(None, "60 test items")}

    def test_without_test_items_the_results_say_which_items_they_are_of(self, hub: LoopbackHub) -> None:
        pages = self.pages("train", hub=hub, test=False)

        assert all("; 50 validation items, which pricer" in (entry.notes or "") for entry in self.entries(pages))


def described(results: Sequence[EvalResult]) -> set[tuple[str | None, str]]:
    """The splits that results name, and the items that they are said to be measured on."""
    return {(result.dataset_split, (result.dataset_args or {})["items"]) for result in results}


@pytest.mark.usefixtures("scorer")
def test_a_hub_that_takes_results_of_benchmarks_alone_takes_the_card_without_them(
    pushed: Repo, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = score("ann/prices", 4)
    monkeypatch.setattr("pricer.commands.parts.model_card.render_results", lambda _: "[]\n")
    hub.faults.script("POST", "/commit/", [Fault.status(400), Fault.status(400)])

    result = Cli("pick", "--repo", "ann/prices")

    assert (result.code, ".eval_results/pricer.yaml" in pushed.files()) == (0, False)
    assert "ann/prices did not take .eval_results/pricer.yaml: the Hub answers 400" in " ".join(result.err.split())
    assert pushed.files()[ADAPTER] == pushed.files("step-000004")[ADAPTER]
    assert "**4 (chosen)**" in card_of(pushed)
    assert run.store.tagged("best") is not None
