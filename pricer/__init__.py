"""pricer: fine-tune a language model to price products, and find its best checkpoint by measurement."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pricer.commands.predict import Predicted

__all__ = ["__version__", "predict"]
__version__ = "0.1.0"


def predict(
    descriptions: Sequence[str], run: str | None = None, *, repo: str | None = None, checkpoint: str | None = None
) -> "Predicted":
    """Price descriptions with a checkpoint of a run in ./runs or of a Hub repository, as `pricer predict` does.

    `run` is a name; None is the newest run, unless a `repo` (USER/NAME) is given. `checkpoint` is a step, an id, `best`
    or `last`; None is the picked one or, if none is picked, the last. Raises PricerErrors. Notes go to stderr.
    torch is imported here, not by `import pricer`.
    """
    from pricer.commands.parts.hub_runs import open_run
    from pricer.commands.predict import predict as command
    from pricer.data.texts import one_text
    from pricer.views.terminal_progress import Watcher

    with Watcher() as watcher:
        source = open_run(run, repo, watcher.note)
        return command(source, checkpoint, lambda _: [one_text(text) for text in descriptions], watcher)
