"""The batch size of a run's evaluations: measured once per device, and kept."""

from pathlib import Path

from pricer.commands.parts.session import settle_batch_tokens
from pricer.commands.parts.setup import prepare
from pricer.config import EvalConfig
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
