"""The batch size of a run's evaluations: as its config says, or found by measurement once per device."""

from collections.abc import Callable, Sequence

from pricer.commands.parts.setup import Setup
from pricer.ml.batches import BatchPredictor, find_batch_tokens
from pricer.ml.devices import device_name
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

# Maximum share of all the work that the measurement may take.
_MEASURING_SHARE = 0.05


def settle_batch_tokens(
    run: Run,
    setup: Setup,
    prompts: Sequence[TokenizedPrompt],
    checkpoints: int,
    load: Callable[[], BatchPredictor],
    note: Callable[[str], None],
) -> int:
    """The maximum number of tokens in a batch, for `checkpoints` checkpoints that predict these prompts.

    With `eval.batch_tokens: auto` it is measured if that is worth the time (then `load` is called) and kept in
    run.json: an evaluation that is continued must have the same batches as before.
    """
    if setup.config.eval.batch_tokens != "auto":
        return setup.batch_tokens
    device = device_name(setup.precision)
    known = run.facts().get("batch_tokens", {})
    if device in known:
        return int(known[device])
    if not checkpoints:
        return setup.batch_tokens
    max_tokens = int(_MEASURING_SHARE * checkpoints * sum(len(prompt.ids) for prompt in prompts))
    batch_tokens = find_batch_tokens(prompts, max_tokens, load) or setup.batch_tokens
    run.record(batch_tokens={**known, device: batch_tokens})
    note(f"batches of up to {batch_tokens:,} tokens")
    return batch_tokens
