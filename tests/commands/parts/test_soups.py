"""`pricer pick --candidates soup`: averages compete, on validation alone; a picked one is used like a checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.publishing import Published
from pricer.commands.parts.soups import score_soups
from pricer.commands.parts.wandb_report import pick_report
from pricer.commands.pick import Picked, confirm, pick
from pricer.commands.predict import predict
from pricer.commands.runs import overviews
from pricer.core.evaluation import Evaluation
from pricer.core.items import Item, Split
from pricer.errors import CheckpointError, RunError
from pricer.stores.checkpoints import read_manifest
from pricer.stores.runs import Run
from pricer.views import terminal, terminal_pick
from pricer.views.terminal_tables import runs as show
from tests.commands.conftest import Listener
from tests.commands.sessions import FakeScorer
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.repositories import Cli, use_cache

# Of the checkpoints 2, 4 and 6, the last one being the best: it is in one window of two and in one of three.
NAMES = ["soup-000004-000006", "soup-000002-000004-000006"]


@pytest.fixture
def run(scorer: FakeScorer, untrained: Run) -> Run:
    """A run whose checkpoints are scored on 6 validation items, the last one the best."""
    evaluate_run(untrained, "all", Split.VAL, 6, Listener())
    return untrained


def lower(run: Run, evaluation: Evaluation, share: float) -> None:
    """Let an evaluation have this share of its error, in every item and in its MAE."""
    assert evaluation.candidate.id is not None
    scores = run.evaluations.scores(evaluation.candidate.id, evaluation.spec)
    assert scores is not None
    imputed = scores.price + share * (scores.imputed - scores.price)
    mae = replace(evaluation.metric("mae"), value=float(np.abs(imputed - scores.price).mean()))
    changed = replace(evaluation, metrics=(mae, *(m for m in evaluation.metrics if m.name != "mae")))
    run.evaluations.add(evaluation.candidate.id, changed, replace(scores, imputed=imputed))


def with_soups(listener: Listener | None = None) -> Picked:
    watcher = listener or Listener()
    return pick(None, "mae", soups=partial(score_soups, watcher=watcher), note=watcher.note)


def soups_win(run: Run) -> Picked:
    """The pick after the soups' errors were made small, the pair's the smallest."""
    with_soups()
    lower_soups(run)
    return with_soups()


def lower_soups(run: Run) -> None:
    for evaluation in run.evaluations.all():
        if evaluation.candidate.members:
            lower(run, evaluation, 0.01 * len(evaluation.candidate.members))


class TestCompeting:
    def test_the_windows_with_the_best_checkpoint_are_made_and_scored_under_its_spec(self, run: Run) -> None:
        listener = Listener()

        picked = with_soups(listener)

        soups = run.store.soups()
        assert [soup.name for soup in soups] == NAMES
        steps = {c.step: c.id for c in run.store.checkpoints()}
        for soup in soups:
            assert [(m.step, m.id) for m in soup.members] == [(s, steps[s]) for s in soup.member_steps]
            assert read_manifest(run.folder / "soups" / soup.name) == soup
        scored = {e.name: e for e in run.evaluations.all() if e.candidate.members}
        assert scored.keys() == set(NAMES)
        assert {e.spec for e in scored.values()} == {picked.selection.chosen.spec}
        assert len(picked.selection.ranking) == 5
        assert picked.selection.comparison is not None
        assert [(one.candidate.step, one.candidate.members) for one in picked.selection.comparison.differences] == [
            (2, ()),
            (4, ()),
            (6, ()),
            (6, (4, 6)),
            (6, (2, 4, 6)),
        ]
        assert [e.name for e in listener.evaluations] == NAMES
        assert picked.unscored == ()

    def test_what_is_there_is_neither_made_nor_scored_again(self, run: Run, scorer: FakeScorer) -> None:
        first = with_soups().selection
        scorer.fail_at = len(scorer.asked)

        assert with_soups().selection == first

    def test_a_plain_pick_leaves_soups_alone(self, run: Run) -> None:
        soups_win(run)

        selection = pick(None, "mae").selection

        assert (selection.candidate.step, selection.candidate.members, len(selection.ranking)) == (6, (), 3)

    def test_a_soup_never_wins_a_tie_against_a_checkpoint(self, run: Run) -> None:
        with_soups()
        best = next(
            e
            for e in run.evaluations.all()
            if e.candidate.step == 6 and not e.candidate.members and e.spec.split is Split.VAL
        )
        scores = run.evaluations.scores(best.candidate.id or "", best.spec)
        assert scores is not None
        for soup in [e for e in run.evaluations.all() if e.candidate.members]:
            run.evaluations.add(soup.candidate.id or "", replace(soup, metrics=best.metrics), scores)

        selection = with_soups().selection

        assert (selection.candidate.id, selection.margin) == (best.candidate.id, 0.0)
        assert [e.name for e in selection.ranking[:3]] == ["step-000006", *NAMES]
        assert selection.comparison is not None
        # In every resample, too.
        assert [one.p_best for one in selection.comparison.differences if one.candidate.members] == [0.0, 0.0]

    @pytest.mark.parametrize(
        ("name", "damage"),
        [("adapter_model.safetensors", "oops"), ("manifest.json", "{"), ("manifest.json", '{"members": []}')],
    )
    def test_a_soup_that_was_damaged_is_made_again(self, run: Run, name: str, damage: str) -> None:
        with_soups()
        path = run.folder / "soups" / NAMES[0] / name
        whole = path.read_bytes()
        path.write_text(damage)

        with_soups()

        assert path.read_bytes() == whole


class TestGoingOn:
    def test_scoring_that_was_interrupted_goes_on(self, run: Run, scorer: FakeScorer) -> None:
        scorer.fail_at = len(scorer.asked) + 1
        with pytest.raises(SystemError):
            with_soups()
        scorer.fail_at = None

        with_soups()

        asked = [answer for answer in scorer.predicted if answer[0] in NAMES]
        assert len(asked) == len(set(asked)) == 2 * 6
        assert len([e for e in run.evaluations.all() if e.candidate.members]) == 2

    def test_making_that_was_interrupted_leaves_no_half_of_a_soup(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("pricer.commands.parts.soups.write_manifest", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                with_soups()
        assert list((run.folder / "soups").iterdir()) == []

        with_soups()

        assert [soup.name for soup in run.store.soups()] == NAMES


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class TestRefused:
    def test_a_member_that_was_changed(self, run: Run) -> None:
        path = run.folder / "checkpoints" / "step-000004" / "adapter_model.safetensors"
        path.write_bytes(b"oops")

        with pytest.raises(CheckpointError, match="step-000004 is not what its manifest says"):
            with_soups()

        assert run.store.soups() == []

    def test_other_data_than_the_checkpoints_were_scored_on(self, run: Run) -> None:
        path = run.folder / "config.yaml"
        path.write_text(path.read_text().replace("estimator: median", "estimator: mean"))

        with pytest.raises(RunError, match="scored under another spec than it has today") as raised:
            with_soups()

        assert raised.value.hint == "pricer eval --all-checkpoints"

    def test_one_checkpoint_has_no_neighbour(self, run: Run) -> None:
        log = run.folder / "checkpoints.jsonl"
        log.write_text(log.read_text().splitlines(keepends=True)[-1])
        listener = Listener()

        picked = with_soups(listener)

        assert (picked.selection.candidate.step, run.store.soups()) == (6, [])
        assert listener.notes == ["there is one checkpoint, and none to average it with"]


@pytest.mark.usefixtures("scorer")
class TestOnTheHub:
    """The checkpoints 2, 4 and 6 of `pushed`, scored and picked where nobody trained them."""

    @pytest.fixture
    def run(self, pushed: Repo) -> Run:
        Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--limit", "6", "--json").json()
        run = Run(Path("runs/ann--prices"))
        lower(run, next(e for e in run.evaluations.all() if e.candidate.step == 6), 0.5)
        return run

    def test_only_the_picked_one_is_pushed_and_the_card_says_what_it_is(self, run: Run, pushed: Repo) -> None:
        picked = soups_win(run)

        assert (picked.problem, picked.published) == (None, Published("ann/prices"))
        titles = pushed.titles()
        assert titles[:2] == ["The pick, and its model card", "soup-000004-000006"]
        assert [name for name in pushed.tags if name.startswith("soup")] == ["soup-000004-000006"]
        assert pushed.tags["best"] == pushed.tags["soup-000004-000006"]
        soup = run.store.soups()[0]
        kept = Path("runs/ann--prices/soups/soup-000004-000006")
        for name in ("adapter_model.safetensors", "adapter_config.json", "manifest.json"):
            assert pushed.files("best")[name] == (kept / name).read_bytes()
        card = pushed.files()["README.md"].decode()
        assert "| **4 + 6 (chosen)** |" in card
        assert f'revision="{soup.commit}"' in card
        assert "This adapter is the exact average of the checkpoints at steps 4, 6" in card

    def test_where_it_was_not_made_it_is_the_best_and_no_step(
        self, run: Run, pushed: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        soup = soups_win(run).selection
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        use_cache(tmp_path / "elsewhere" / ".huggingface", monkeypatch)

        def scored(*which: str) -> list[tuple[int, str]]:
            answer = Cli("eval", "--repo", "ann/prices", *which, "--limit", "6", "--json").json()
            return [(c["step"], c["id"]) for e in answer["evaluations"] if (c := e["candidate"])["id"]]

        best = scored("--checkpoint", "best")
        by_step = scored("--all-checkpoints")

        assert best == [(6, soup.candidate.id)]
        assert [step for step, _ in by_step] == [2, 4, 6]
        assert soup.candidate.id not in dict(by_step).values()
        there, here = (
            Run(folder / "runs" / "ann--prices").evaluations.predictions(soup.candidate.id or "", soup.chosen.spec)
            for folder in (Path(), tmp_path)
        )
        assert there == here

    def test_a_hub_that_refuses_keeps_the_choice(self, run: Run, pushed: Repo, hub: LoopbackHub) -> None:
        with_soups()
        lower_soups(run)
        hub.faults.script("POST", "/commit/", [Fault.status(403)] * 9)

        listener = Listener()
        picked = with_soups(listener)
        hub.faults.clear()

        assert listener.notes == [f"pushing soup-000004-000006 to {hub.url}/ann/prices"]
        assert picked.untagged == run.store.soups()[0]
        assert run.store.tagged("best") == picked.untagged
        assert not [name for name in pushed.tags if name.startswith("soup")]
        again = with_soups()
        assert (again.problem, again.untagged) == (None, None)
        quiet = Listener()
        with_soups(quiet)
        assert quiet.notes == []
        assert pushed.tags["best"] == pushed.tags["soup-000004-000006"]


class TestPicked:
    def test_it_is_the_best_by_name_and_by_tag(self, run: Run) -> None:
        picked = soups_win(run)

        soup = run.store.soups()[0]
        assert (picked.selection.candidate.id, picked.selection.candidate.step) == (soup.id, 6)
        assert picked.selection.candidate.members == (4, 6)
        assert run.store.tagged("best") == soup
        record = json.loads((run.folder / "selection.json").read_text())
        assert record["candidate"]["members"] == [4, 6]
        assert [entry["candidate"]["members"] for entry in record["ranking"]] == [[4, 6], [2, 4, 6], [], [], []]
        for which in ("best", soup.name, soup.id[:8]):
            found = evaluate_run(run, which, Split.VAL, 6, Listener())
            assert found.evaluations[-1].candidate.id == soup.id
        # A step is that of the checkpoint.
        assert evaluate_run(run, "6", Split.VAL, 6, Listener()).evaluations[-1].name == "step-000006"

    def test_it_predicts_and_is_confirmed(self, run: Run) -> None:
        picked = soups_win(run)
        item = Item("a", "A 486 PC of 33 MHz", 1.0)

        priced = predict(run, None, lambda _: [item], Listener())
        confirmed = confirm(picked, Listener())

        assert priced.checkpoint.name == NAMES[0]
        assert (confirmed.confirmation.candidate.name, confirmed.confirmation.metric.n) == (NAMES[0], 8)
        assert confirmed.confirmation.candidate.id == picked.selection.candidate.id

    def test_it_is_shown_as_an_average_and_never_as_a_step(
        self, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        picked = soups_win(run)
        capsys.readouterr()

        terminal_pick.picked(picked, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        best = next(line for line in lines if line.startswith("best: "))
        terminal_pick.next_step(picked)
        assert capsys.readouterr().err.endswith("pricer pick --confirm --candidates soup --run quickstart\n")
        assert best.startswith(f"best: the average of steps 4, 6 ({(picked.selection.candidate.id or '')[:7]}), $")
        assert any(line.startswith("mae of the average of steps 4, 6: $") for line in lines)
        show(overviews(), as_json=False)
        assert "soup 4+6" in capsys.readouterr().out
        assert pick_report(picked.selection).summary["best_members"] == 2
        drawn: list[list[int]] = []

        def draw(points: Sequence[tuple[int, float]], *_: object) -> str:
            drawn.append([step for step, _ in points])
            return "a curve"

        monkeypatch.setattr(terminal, "_is_drawable", lambda: True)
        monkeypatch.setattr(terminal, "_draw", draw)
        monkeypatch.setenv("COLUMNS", "80")
        terminal_pick.draw_pick(picked)
        assert drawn == [[2, 4, 6]]
