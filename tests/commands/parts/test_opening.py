"""The batch size of a run's evaluations is kept with the run; greedy scoring computes no distribution."""

from pathlib import Path

from pricer.commands.parts.opening import load_scorer, settle_batch_tokens
from pricer.commands.parts.setup import prepare
from pricer.config import EvalConfig, RunConfig
from pricer.stores.runs import Run
from tests.commands.conftest import Listener


def test_what_was_found_stays_with_the_run(trained: Path) -> None:
    run, listener = Run(trained), Listener()
    setup = prepare(run.config())

    first = settle_batch_tokens(run, setup, lambda: 4096, listener)
    second = settle_batch_tokens(run, setup, lambda: 512, listener)

    assert (first, second) == (4096, 4096)
    assert run.facts()["batch_tokens"] == {"cpu": 4096}
    assert listener.notes == ["batches of up to 4,096 tokens"]


def test_a_config_may_fix_it(trained: Path) -> None:
    config = Run(trained).config().model_copy(update={"eval": EvalConfig(batch_tokens=640)})

    assert settle_batch_tokens(Run(trained), prepare(config), lambda: 4096, Listener()) == 640


def test_greedy_scoring_gives_the_same_answers_without_distributions() -> None:
    median, greedy = (prepare(RunConfig(eval=EvalConfig(estimator=estimator))) for estimator in ("median", "greedy"))
    prompts = median.prompts(median.items.val[:20])

    with_distribution, alone = (load_scorer(setup).predict(prompts) for setup in (median, greedy))

    assert all(prediction.distribution for prediction in with_distribution)
    assert {prediction.distribution for prediction in alone} == {None}
    assert [p.completion for p in alone] == [p.completion for p in with_distribution]
