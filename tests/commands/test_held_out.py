"""Adapters of other trainers are scored on items that they were not trained on, or a note says that nobody knows."""

import random
from pathlib import Path
from typing import Any

import datasets  # noqa: F401  # at the top, so that the fixture `hub` points it at the loopback Hub
import pytest

from pricer.commands.parts.baselines import BASELINES
from pricer.config import DataConfig
from pricer.data.preparation import load_items
from pricer.stores.runs import Run
from tests.commands.sessions import FakeScorer
from tests.loopback_hub import LoopbackHub
from tests.repositories import Cli, adapter_files, put_base

WORDS = "amber brass copper dusk ember frost glass hazel iron jade kelp lime moss navy oak pearl quartz rust silk teal"
CARD = b"---\ndatasets: [ann/lamps]\n---\nA LoRA, fine-tuned on the `train` split of ann/lamps.\n"
SILENT = b"---\nlibrary_name: peft\n---\n"
HONEST, MEMORY = 325, 356


def rows(start: int, count: int) -> bytes:
    """Different descriptions, with prices from $1,000 up."""
    chosen = [random.Random(n).choices(WORDS.split(), k=9) for n in range(start, start + count)]
    lines = [f"{' '.join(words)} {start + n},{1000 + start + n}" for n, words in enumerate(chosen)]
    return "\n".join(["description,price", *lines, ""]).encode()


@pytest.fixture
def adapters(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> FakeScorer:
    """The repository ann/prices: step 100 is $325 off everywhere; step 400 knows the first 600 rows by heart, and is
    $356 off on all others.
    """

    def price(_: str, item_id: str) -> float:
        true: float = fake.prices[item_id]  # type: ignore[attr-defined]
        return true + (HONEST if fake.weights == b"step 100" else 0 if true < 1600 else MEMORY)

    fake = FakeScorer(price)
    monkeypatch.setattr("pricer.commands.parts.opening.load_scorer", lambda *_: fake)
    monkeypatch.setattr("pricer.commands.predict.load_scorer", lambda *_: FakeScorer(lambda *_: 7.0))
    monkeypatch.setattr("pricer.commands.parts.baselines.BASELINES", dict([*BASELINES.items()][:1]))
    put_base(hub)
    repo = hub.create("ann/prices")
    for step in (100, 400):
        repo.commit(adapter_files(b"step %d" % step), f"Training in progress, step {step}")
    return fake


def publish(hub: LoopbackHub, adapters: FakeScorer, card: bytes, **counts: int) -> None:
    """The data set ann/lamps, its rows numbered through its splits, and the card of the adapters."""
    start, files = 0, {}
    for split, count in counts.items():
        files[f"{split}.csv"] = rows(start, count)
        start += count
    hub.create("ann/lamps", kind="dataset").commit(files, "lamps")
    hub.repo("ann/prices").commit({"README.md": card}, "card")
    tell_prices(adapters)


def tell_prices(adapters: FakeScorer) -> None:
    """Let the adapters know the price of every item."""
    items = load_items(DataConfig(source="ann/lamps"))
    everything = [*items.train, *items.val, *items.test]
    adapters.prices = {item.id: item.price for item in everything}  # type: ignore[attr-defined]


def evaluate(*more: str) -> Cli:
    arguments = ("--set", "data.source=ann/lamps", "--set", "train.val_items=0", *more)
    return Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json", *arguments)


def errors(answer: dict[str, Any]) -> dict[int, float]:
    """The mean absolute errors by step."""
    scored = [one for one in answer["evaluations"] if one["candidate"]["step"] is not None]
    mae = {one["candidate"]["step"]: {m["name"]: m["value"] for m in one["metrics"]}["mae"] for one in scored}
    return {step: round(value) for step, value in mae.items()}


@pytest.mark.parametrize("settings", [(), ("--set", "data.keep_splits=false")])
def test_an_adapter_that_knows_the_training_rows_by_heart_does_not_win(
    hub: LoopbackHub, adapters: FakeScorer, settings: tuple[str, ...]
) -> None:
    publish(hub, adapters, CARD, train=600, validation=150, test=150)

    result = evaluate(*settings)
    test = evaluate("--split", "test", *settings).json()
    picked = Cli("pick", "--repo", "ann/prices", "--json").json()

    # Joined and split anew, two of three items would be rows of train: 0 for them is a third of $356 for step 400.
    assert (result.json()["n"], errors(result.json())) == (150, {100: HONEST, 400: MEMORY})
    assert (test["n"], errors(test)) == (150, {100: HONEST, 400: MEMORY})
    assert picked["candidate"]["step"] == 100
    said = {
        "known": True,
        "text": "held out: the adapters were trained on train of ann/lamps, as README.md of ann/prices says; none of "
        "it is scored",
    }
    assert result.json()["held_out"] == test["held_out"] == picked["held_out"] == said
    assert ("data.keep_splits: false is not followed" in result.err) is bool(settings)
    assert "warning" not in result.err


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_split_that_is_missing_is_cut_from_the_other_held_out_split(
    hub: LoopbackHub, adapters: FakeScorer, missing: str
) -> None:
    publish(hub, adapters, CARD, **{"train": 600, "test" if missing == "validation" else "validation": 300})

    val, test = evaluate().json(), evaluate("--split", "test").json()

    # A hash divides the 300 rows. Cut from train, a split would have 0 for step 400.
    assert errors(val) == errors(test) == {100: HONEST, 400: MEMORY}
    assert val["n"] + test["n"] == 300
    assert 120 < val["n"] < 180  # 150 ± 3 standard deviations of √(300 / 4) = 8.7


def test_a_source_that_was_trained_on_as_a_whole_is_refused_for_scoring_only(
    hub: LoopbackHub, adapters: FakeScorer
) -> None:
    publish(hub, adapters, CARD, train=700)

    refused = evaluate()
    forced = evaluate("--set", "data.trained_splits=[]")
    predicted = Cli("predict", "--repo", "ann/prices", "a lamp")

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.splitlines()[-2:] == [
        "error: every item of ann/lamps is in a split that was trained on (train): none is held out",
        " hint: score other items: --data FILE; or name held-out items: --set data.val_source=FILE",
    ]
    assert forced.json()["held_out"] == {
        "known": True,
        "text": "held out: the adapters were trained on no item of ann/lamps, as data.trained_splits says",
    }
    assert predicted.out == "$7\n"


def test_what_nobody_knows_is_said_everywhere(hub: LoopbackHub, adapters: FakeScorer) -> None:
    publish(hub, adapters, SILENT, train=600, validation=150, test=150)
    doubt = (
        "not known to be held out: ann/prices names no Hub data set that its adapters were trained on. The split train "
        "of ann/lamps is assumed, and none of it is scored. If you know better, set data.trained_splits"
    )

    answer = evaluate(*("--set", "data.keep_splits=false")).json()
    shown = Cli("eval", "--repo", "ann/prices", "--all-checkpoints")
    picked = Cli("pick", "--repo", "ann/prices")
    reported = Cli("report", "--run", "ann--prices")

    assert errors(answer) == {100: HONEST, 400: MEMORY}
    assert answer["held_out"] == {"known": False, "text": doubt}
    assert f"warning: {doubt}" in shown.err.splitlines()
    assert doubt in shown.out.splitlines()
    assert doubt in picked.out.splitlines()
    assert Cli("pick", "--repo", "ann/prices", "--json").json()["held_out"]["known"] is False
    assert f"The scored items are {doubt}." in reported.err.splitlines()
    assert f"The scored items are {doubt}." in Path("runs/ann--prices/report.html").read_text()
    assert Run(Path("runs/ann--prices")).facts()["held_out"] == {"known": False, "text": doubt}


@pytest.mark.parametrize("card", [SILENT, b"---\ndatasets: ann/lamps\n---\n"])
def test_a_source_without_held_out_splits_is_scored_with_a_warning(
    hub: LoopbackHub, adapters: FakeScorer, card: bytes
) -> None:
    publish(hub, adapters, card, train=900)

    result = evaluate()

    assert result.json()["n"] > 50
    assert result.json()["held_out"]["known"] is False
    assert (
        "ann/lamps has no held-out split of its own, so the adapters may have been trained on the items" in result.err
    )


def test_files_of_this_machine_are_never_known_to_be_held_out(hub: LoopbackHub, adapters: FakeScorer) -> None:
    publish(hub, adapters, CARD, train=600, test=300)
    Path("copy").mkdir()
    Path("copy/train.csv").write_bytes(rows(0, 600))
    Path("copy/test.csv").write_bytes(rows(600, 300))

    answer = evaluate("--set", "data.source=copy").json()

    assert errors(answer) == {100: HONEST, 400: MEMORY}
    assert answer["held_out"]["known"] is False
    assert "ann/prices names ann/lamps, and copy may have the same items." in answer["held_out"]["text"]


def test_splits_may_be_said_by_the_user(hub: LoopbackHub, adapters: FakeScorer) -> None:
    publish(hub, adapters, SILENT, train=600, validation=150, test=150)

    answer = evaluate("--set", "data.trained_splits=[train, val]").json()

    assert 50 < answer["n"] < 100  # a half of 150 test items
    assert answer["held_out"] == {
        "known": True,
        "text": "held out: the adapters were trained on train and val of ann/lamps, as data.trained_splits says; "
        "none of it is scored",
    }
    refused = evaluate("--set", "data.trained_splits=[train]", "--set", "data.keep_splits=false")
    assert "trained_splits needs keep_splits: true, because joined splits cannot be told apart" in refused.err


def test_other_data_may_have_been_trained_on(hub: LoopbackHub, adapters: FakeScorer) -> None:
    publish(hub, adapters, CARD, train=600, test=300)
    Path("some.csv").write_bytes(rows(500, 200))

    answer = evaluate("--data", "some.csv").json()

    assert answer["n"] == 200
    assert answer["held_out"] == {
        "known": False,
        "text": "not known to be held out: the adapters may have been trained on items of some.csv",
    }
    assert evaluate("--data", "ann/lamps").json()["held_out"] == {
        "known": False,
        "text": "not held out: the adapters were trained on train of ann/lamps, as README.md of ann/prices says, and "
        "all its items are scored; without --data, only items outside of it are",
    }


def test_a_held_out_split_of_copies_is_not_held_out(hub: LoopbackHub, adapters: FakeScorer) -> None:
    publish(hub, adapters, CARD, train=600, validation=150, test=150)
    hub.repo("ann/lamps", kind="dataset").commit({"validation.csv": rows(0, 40)}, "forty training rows")
    tell_prices(adapters)

    found = evaluate().json()["held_out"]

    assert not found["known"]
    assert found["text"].endswith("none of it is scored. 40 of 40 val items have a near-copy among the training items")


def test_what_was_downloaded_says_what_was_trained_on_without_the_network(
    hub: LoopbackHub, adapters: FakeScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, adapters, CARD, train=600, validation=150, test=150)
    revision = hub.repo("ann/lamps").commits()[0].hash
    online = evaluate("--set", f"data.revision={revision}").json()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    offline = evaluate("--set", f"data.revision={revision}").json()

    assert offline["held_out"] == online["held_out"]
    assert offline["held_out"]["known"]
    assert errors(offline) == errors(online)
