"""What a report finds of a run, whatever state it is in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pricer.commands.parts.report_data import load_report
from pricer.core.items import Split
from pricer.core.metrics import measure_all
from pricer.core.selection import Confirmation, find_comparable
from pricer.core.verdicts import IntervalVerdict
from pricer.data.preparation import load_items
from pricer.errors import RunError
from pricer.stores.runs import Run
from pricer.views.report.page import run_page
from tests.views.report.runs import HOSTILE, a_trained_run, config_for, picked, scored


def test_a_whole_run_is_found_whole(whole: Run) -> None:
    found = load_report(whole)

    assert found.notes == ()
    assert found.held_out is not None
    assert [e.candidate.step for e in found.held_out.checkpoints] == [20, 40, 60]
    assert (found.held_out.chosen.candidate.step, found.held_out.picked, found.held_out.metric) == (40, True, "mae")
    assert [e.name for e in found.held_out.baselines] == ["train <i>median</i>"]
    assert found.tested is not None
    assert (found.tested.evaluation.candidate.step, found.tested.evaluation.spec.split) == (40, Split.TEST)
    assert len(found.training.loss) == 60
    assert found.training.loss.value[[0, 29]].tolist() == [3.0, pytest.approx(2 + 2 / 30)]
    assert (found.training.val_mae.value.tolist(), found.training.val_items) == ([70.0, 90.0, 110.0], 8)


def test_other_looks_at_the_test_split_are_counted(whole: Run, items: Path) -> None:
    scored(whole, load_items(config_for(items).data), Split.TEST, steps=(20, 60))

    found = load_report(whole).tested

    assert found is not None
    assert found.evaluation.candidate.step == 40
    assert sorted(found.other_looks) == ["step-000020", "step-000060"]


def test_behind_the_number_are_test_items_once_they_are_scored(whole: Run, items: Path) -> None:
    found = load_report(whole).details

    test = load_items(config_for(items).data).test
    assert found is not None
    assert found.evaluation.spec.split is Split.TEST
    assert found.texts == tuple(item.text for item in test)
    assert found.scores.price.tolist() == [item.price for item in test]
    assert [report.level for report in found.breakdown.coverage] == [0.8, 0.95]
    assert found.breakdown.calibrated_on == len(load_items(config_for(items).data).val)
    assert {miss.text for miss in found.breakdown.worst[:2]} & set(HOSTILE)


def test_a_run_that_is_still_training(items: Path) -> None:
    found = load_report(a_trained_run(items, finished=False, steps=30))

    assert found.status == "epoch 1.50 of 3: still training, or interrupted"
    assert (found.held_out, found.tested, found.details) == (None, None, None)
    assert found.notes == ("No checkpoint has been evaluated yet: pricer eval --all-checkpoints --run lamps",)


def test_a_run_that_was_stopped_early_says_why(items: Path) -> None:
    run = a_trained_run(items)
    run.record(stopped_early={"best": 20, "newest": 60, "worse": 2, "spec_fingerprint": "5pec"})

    found = load_report(run)

    assert found.status.endswith(
        " UTC, stopped early: step 20 is the best, and the newest 2 checkpoints are all clearly worse"
    )


def test_a_run_before_its_first_step(items: Path) -> None:
    found = load_report(a_trained_run(items, finished=False, steps=0))

    assert found.status == "training has just begun, or was interrupted"


def test_a_run_that_is_not_picked_shows_the_lowest_error(items: Path) -> None:
    run = a_trained_run(items)
    scored(run, load_items(run.config().data))

    found = load_report(run)

    assert found.held_out is not None
    assert (found.held_out.chosen.candidate.step, found.held_out.picked) == (40, False)
    assert found.notes == ("No checkpoint has been picked yet: pricer pick --run lamps",)
    assert found.details is not None
    assert found.details.evaluation.spec.split is Split.VAL
    assert found.details.breakdown.calibrated_on is None


def test_without_the_data_the_report_is_made_without_descriptions(whole: Run) -> None:
    config, tested = whole.config(), load_report(whole)
    assert tested.tested is not None
    assert tested.details is not None
    measured, coverage = tested.tested.evaluation, tested.details.breakdown.coverage
    confirmation = Confirmation("2026", measured.candidate, measured.spec.fingerprint, measured.metric("mae"), 1, ())
    whole.add_confirmation(replace(confirmation, coverage=coverage))
    gone = config.model_copy(update={"data": config.data.model_copy(update={"source": "gone.jsonl"})})
    text = (whole.folder / "config.yaml").read_text(encoding="utf-8")
    (whole.folder / "config.yaml").write_text(text.replace(config.data.source, gone.data.source), encoding="utf-8")

    found = load_report(whole)

    assert found.details is not None
    assert (found.details.texts, found.details.breakdown.coverage) == (None, ())
    assert len(found.details.breakdown.price_bands) == 5
    assert found.verdicts == tested.verdicts  # the confirmation has recorded what the intervals hold
    assert any(isinstance(verdict, IntervalVerdict) for verdict in found.verdicts)
    assert found.notes == (
        "The data cannot be read, so descriptions and intervals are not shown here: there is no file or folder "
        "gone.jsonl",
    )


def test_data_that_have_changed_are_not_taken_for_those_that_were_asked_about(whole: Run, tmp_path: Path) -> None:
    source = whole.config().data.source
    lines = Path(source).read_text(encoding="utf-8").replace("A lamp of 100 watts", "A lamp of 101 watts")
    (tmp_path / "changed.jsonl").write_text(lines, encoding="utf-8")
    text = (whole.folder / "config.yaml").read_text(encoding="utf-8")
    (whole.folder / "config.yaml").write_text(text.replace(source, "changed.jsonl"), encoding="utf-8")

    found = load_report(whole)

    assert found.details is not None
    assert found.details.texts is None
    assert "The data of changed.jsonl have changed since the evaluation" in found.notes[0]


def test_an_evaluation_without_distributions_says_nothing_of_intervals(items: Path) -> None:
    run = a_trained_run(items)
    spec = scored(run, load_items(run.config().data))
    for path in run.folder.glob("evaluations/*/predictions.jsonl"):
        batches = [json.loads(line)["batch"] for line in path.read_text(encoding="utf-8").splitlines()]
        plain = [{"batch": [{**one, "distribution": None} for one in batch]} for batch in batches]
        path.write_text("".join(json.dumps(line) + "\n" for line in plain), encoding="utf-8")
    picked(run, spec)

    found = load_report(run).details

    assert found is not None
    assert found.breakdown.coverage == ()
    assert found.texts is not None


def test_answers_that_are_gone_leave_what_can_be_said_without_them(whole: Run) -> None:
    for path in whole.folder.glob("evaluations/*/predictions.jsonl"):
        path.unlink()

    found = load_report(whole)

    assert found.details is not None
    assert found.details.breakdown.coverage == ()
    assert found.notes == ("The answers behind step-000040 are not all there, so its intervals are not shown.",)


def test_scores_that_were_not_kept_leave_what_lies_behind_them_out(whole: Run) -> None:
    for path in whole.folder.glob("evaluations/*/scores.npz"):
        path.unlink()

    found = load_report(whole)

    assert found.details is None
    assert found.held_out is not None
    assert found.held_out.prices == ()
    assert found.notes == ("The scores of step-000040 were not kept; to make them again: pricer eval --run lamps",)


def test_evaluations_under_another_spec_are_counted_and_not_mixed_in(whole: Run) -> None:
    first = next(e for e in whole.evaluations.all() if e.candidate.step == 20)
    scores = whole.evaluations.scores(first.candidate.id or "", first.spec)
    assert scores is not None
    whole.evaluations.add(first.candidate.id or "", replace(first, spec=replace(first.spec, limit=5)), scores)

    found = load_report(whole)

    assert found.held_out is not None
    assert len(found.held_out.checkpoints) == 3
    assert found.notes == ("1 evaluations under another spec cannot be compared with these: not shown.",)


def selection_of(run: Run) -> dict[str, Any]:
    """What selection.json has."""
    record: dict[str, Any] = json.loads((run.folder / "selection.json").read_text(encoding="utf-8"))
    return record


def keep_selection(run: Run, record: dict[str, Any]) -> None:
    """Write selection.json by hand."""
    (run.folder / "selection.json").write_text(json.dumps(record), encoding="utf-8")


def test_what_the_pick_is_worth_is_found_with_it(whole: Run) -> None:
    held_out = load_report(whole).held_out

    assert held_out is not None
    assert held_out.comparison is not None
    assert [(one.candidate.step, one.is_best) for one in held_out.comparison.differences] == [
        (20, False),
        (40, True),
        (60, False),
    ]
    assert held_out.chosen.candidate == held_out.comparison.best
    assert held_out.difference(held_out.baselines[0]) is None


def test_a_pick_without_a_comparison_is_shown_without_it(whole: Run) -> None:
    keep_selection(whole, {**selection_of(whole), "comparison": None})

    found = load_report(whole)

    assert found.held_out is not None
    assert (found.held_out.picked, found.held_out.comparison, found.notes) == (True, None, ())


def test_checkpoints_that_were_scored_since_the_pick_are_named(whole: Run, items: Path) -> None:
    scored(whole, load_items(config_for(items).data), steps=(80, 100))

    found = load_report(whole)

    assert found.notes == ("Scored since the pick, so not compared in it: steps 80, 100. pricer pick --run lamps",)
    assert found.held_out is not None
    assert [found.held_out.difference(e) is None for e in found.held_out.checkpoints] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_a_checkpoint_made_anew_is_not_taken_for_the_one_of_its_step_that_was_compared(whole: Run) -> None:
    first = next(e for e in whole.evaluations.all() if e.candidate.step == 20)
    scores = whole.evaluations.scores(first.candidate.id or "", first.spec)
    assert scores is not None
    whole.evaluations.add("f" * 40, replace(first, candidate=replace(first.candidate, id="f" * 40)), scores)

    found = load_report(whole).held_out

    assert found is not None
    compared = [(e.candidate.step, found.difference(e) is not None) for e in found.checkpoints]
    assert sorted(compared) == [(20, False), (20, True), (40, True), (60, True)]


def test_before_a_pick_the_report_prefers_the_spec_that_pick_would_choose_by(whole: Run) -> None:
    # All checkpoints on all items, and on ten items as well.
    (whole.folder / "selection.json").unlink()
    on_all = [e for e in whole.evaluations.all() if e.candidate.id and e.spec.split is Split.VAL]
    for evaluation in on_all:
        table = whole.evaluations.scores(evaluation.candidate.id or "", evaluation.spec)
        assert table is not None
        few = table.rows(np.arange(10))
        changed = replace(evaluation, spec=replace(evaluation.spec, limit=10), metrics=measure_all(few))
        whole.evaluations.add(evaluation.candidate.id or "", changed, few)

    found = load_report(whole).held_out

    assert found is not None
    assert list(found.checkpoints) == on_all
    assert find_comparable(whole.evaluations.all(), [e.candidate.id or "" for e in on_all]) == on_all


TOKEN = "hf_" + "Ab1" * 10


def test_no_token_of_a_description_a_setting_or_a_fact_gets_into_the_page(tmp_path: Path) -> None:
    rows = [{"description": f"A lamp {n}, {TOKEN}", "price": 10.0 + n, "kind": f"key {TOKEN}"} for n in range(240)]
    (tmp_path / "leaky.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = a_trained_run(tmp_path / "leaky.jsonl")
    picked(run, scored(run, load_items(run.config().data)))
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    leaky = {**facts, "device": f"cuda {TOKEN}", "from_hub": True, "repo": TOKEN, "versions": {"torch": TOKEN}}
    (run.folder / "run.json").write_text(json.dumps(leaky), encoding="utf-8")

    found = load_report(run)

    assert found.details is not None
    assert found.details.texts is not None
    assert found.details.texts[0].endswith(", ***")
    assert [group.name for group in found.details.breakdown.categories] == ["key ***"]
    assert ("device", "cuda ***") in found.facts
    assert TOKEN.encode() not in run_page(found)[0]


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY"])
def test_nor_does_one_of_the_environment_that_looks_like_nothing(
    whole: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "lamp of 101 watts")

    found = load_report(whole).details

    assert found is not None
    assert found.texts is not None
    assert [text for text in found.texts if "101 watts" in text or "***" in text] == ["A ***"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": "40"}', "{"])
def test_a_damaged_pick_is_named(whole: Run, content: str) -> None:
    (whole.folder / "selection.json").write_text(content, encoding="utf-8")

    with pytest.raises(RunError, match=r"selection\.json is damaged"):
        load_report(whole)


def test_what_a_log_says_in_other_types_is_no_number(items: Path) -> None:
    run = a_trained_run(items, steps=0)
    run.log({"step": 1, "loss": None, "gpu_utilisation": 87, "tokens_per_second": "many"})
    run.log({"step": 2, "loss": 1.5, "gpu_utilisation": None, "memory_used": True})

    log = load_report(run).training

    assert [str(value) for value in log.loss.value] == ["nan", "1.5"]
    assert (log.gpu_utilisation.step.tolist(), log.gpu_utilisation.value.tolist()) == ([1], [87.0])
    assert [str(value) for value in log.tokens_per_second.value] == ["nan"]
