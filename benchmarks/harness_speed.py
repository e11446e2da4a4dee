"""Items per second of an evaluation, against lm-evaluation-harness: its `hf` backend with `peft=`, each loaded once.

    python benchmarks/harness_speed.py RUN_FOLDER PYTHON [ITEMS] [REPEATS] [BATCH_SIZE]

PYTHON is an interpreter that has `lm_eval[hf]` installed. BATCH_SIZE is the harness's (default: auto, for which it
searches some minutes). The harness loads the base in float32; if the run's base is in 4 bits (the demo's), it loads the
same weights, dequantized. pricer with whole distributions, pricer with greedy answers alone, and the
harness answer the prompts of the same validation items with the run's last checkpoint, in turns. The CPU's time is
shown beside the clock's: what else runs on the machine disturbs it less.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from pricer.commands.parts.setup import Setup, prepare
from pricer.ml.adapters import AdapterSwitch
from pricer.ml.base import load_base
from pricer.ml.batches import find_batch_tokens, make_batches
from pricer.ml.predict import TreeDecoder
from pricer.ml.tokens import PriceTokens, TokenizedPrompt
from pricer.stores.runs import Run

WORKER = Path(__file__).with_name("harness_worker.py")
# Maximum number of tokens that the search for pricer's batch size may use.
SEARCH_TOKENS = 40_000


@dataclass(frozen=True, slots=True)
class Turn:
    """The answers to all prompts, in their order, and the seconds by the clock and of the CPU."""

    answers: list[str]
    wall: float
    cpu: float


def main() -> None:
    """Print the items per second of each turn, and the medians of the ratios."""
    run, python = Run(Path(sys.argv[1]).resolve()), Path(sys.argv[2]).absolute()
    count, repeats, batch_size = (*sys.argv[3:], *["250", "3", "auto"][len(sys.argv) - 3 :])
    setup = prepare(run.config())
    prompts = setup.prompts(setup.items.val[: int(count)])
    adapter = run.store.fetch(run.store.checkpoints()[-1])
    switch = AdapterSwitch(load_base(setup.base.folder, setup.precision))
    switch.use(adapter)
    ways = {
        "distributions": prepare_ours(switch.model, setup, setup.price_tokens, prompts),
        "greedy": prepare_ours(switch.model, setup, None, prompts),
    }
    with open_harness(python, setup, adapter, prompts, batch_size) as ask:
        compare({**ways, "harness": ask}, len(prompts), int(repeats))


def compare(ways: dict[str, Callable[[], Turn]], count: int, repeats: int) -> None:
    """Let all answer in turns, and print their speeds."""
    for answer in ways.values():
        answer()  # the first time takes longer
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, answer in ways.items():
            turns[name].append(answer())
        speeds = (f"{name} {count / own[-1].wall:.2f} ({count / own[-1].cpu:.2f})" for name, own in turns.items())
        print("items/s by the clock (by the CPU's time): " + ", ".join(speeds), flush=True)
    theirs = turns.pop("harness")
    for name, ours in turns.items():
        wall = statistics.median(other.wall / own.wall for own, other in zip(ours, theirs, strict=True))
        cpu = statistics.median(other.cpu / own.cpu for own, other in zip(ours, theirs, strict=True))
        same = sum(own == other for own, other in zip(ours[-1].answers, theirs[-1].answers, strict=True))
        print(
            f"{name}: {wall:.2f} ({cpu:.2f}) times the harness's speed; {same} of {count} greedy answers are the same"
        )


def prepare_ours(
    model: object, setup: Setup, price_tokens: PriceTokens | None, prompts: Sequence[TokenizedPrompt]
) -> Callable[[], Turn]:
    """A function that answers all prompts with pricer. Without `price_tokens`, it computes no distributions."""
    price_format, length = setup.template.price_format, setup.encoder.answer_tokens
    residual_mass = setup.config.eval.residual_mass
    decoder = TreeDecoder(model, setup.tokenizer, price_format, length, price_tokens, residual_mass)
    batch_tokens = find_batch_tokens(prompts, SEARCH_TOKENS, lambda: decoder) or setup.batch_tokens
    print(f"batches of up to {batch_tokens:,} tokens", flush=True)
    batches = make_batches([len(prompt.ids) for prompt in prompts], batch_tokens)

    def answer() -> Turn:
        wall, cpu = time.perf_counter(), time.process_time()
        answers: dict[int, str] = {}
        for batch in batches:
            predictions = decoder.predict([prompts[index] for index in batch])
            answers |= {index: each.completion for index, each in zip(batch, predictions, strict=True)}
        in_order = [answers[index] for index in range(len(prompts))]
        return Turn(in_order, time.perf_counter() - wall, time.process_time() - cpu)

    return answer


def save_dense_base(setup: Setup, folder: Path) -> Path:
    """Save the base's 4-bit weights dequantized, as a base in float32."""
    model = load_base(setup.base.folder, setup.precision, dense=True)
    state = {name: tensor.float().contiguous() for name, tensor in model.state_dict().items()}
    target = folder / "base"
    shutil.copytree(setup.base.folder, target)
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    return target


@contextmanager
def open_harness(
    python: Path, setup: Setup, adapter: Path, prompts: Sequence[TokenizedPrompt], batch_size: str
) -> Iterator[Callable[[], Turn]]:
    """A process of the harness, as a function that answers all prompts."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = Path(scratch) / "prompts.json"
        decoded = [setup.tokenizer.decode(prompt.ids, skip_special_tokens=True) for prompt in prompts]
        texts.write_text(json.dumps(decoded), encoding="utf-8")
        base = save_dense_base(setup, Path(scratch)) if setup.precision.quantization == "nf4" else setup.base.folder
        # The harness cuts longer prompts. It must cut none.
        limits = [str(setup.template.max_length + 8), str(setup.encoder.answer_tokens), batch_size]
        command = [str(python), str(WORKER), str(base), str(adapter), str(texts), *limits]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as worker:
            assert worker.stdin
            assert worker.stdout
            stdin, stdout = worker.stdin, worker.stdout
            print(f"the harness's batches: {json.loads(stdout.readline())['batch_size']} items", flush=True)

            def ask() -> Turn:
                print("answer", file=stdin, flush=True)
                return Turn(**json.loads(stdout.readline()))

            yield ask
            stdin.close()


if __name__ == "__main__":
    main()
