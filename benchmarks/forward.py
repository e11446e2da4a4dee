"""How near the prompts come to what the processor can multiply, and how much memory scoring takes.

    python benchmarks/forward.py RUN_FOLDER [ITEMS]

Prompts of validation items are computed by the last checkpoint of a run, in batches of several sizes; matrix products
in float32 of 2,048 x 2,048 are timed before and after each. The operations counted are two for each weight that is no
embedding and each token that is computed, those of attention, and those of the output layer at one position a prompt.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

from pricer.commands.parts.setup import prepare
from pricer.ml.adapters import AdapterSwitch
from pricer.ml.base import load_base
from pricer.ml.batches import make_batches
from pricer.ml.devices import peak_memory
from pricer.ml.predict import TreeDecoder
from pricer.stores.runs import Run

BUDGETS = (512, 1024, 2048, 4096, 8192)
SIZE = 2048


def main() -> None:
    """Print operations per second by size of the batches, and the share of those in a matrix product."""
    run, count = Run(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 120
    setup = prepare(run.config())
    before = peak_memory(setup.precision.device)
    switch = AdapterSwitch(load_base(setup.base.folder, setup.precision))
    loaded = peak_memory(setup.precision.device)
    switch.use(run.store.fetch(run.store.checkpoints()[-1]))
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:count]])
    lengths = [len(prompt.ids) for prompt in prompts]
    shared = next(n for n in range(min(lengths)) if len({int(prompt.ids[n]) for prompt in prompts}) > 1)
    operations = sum(count_operations(switch.model, length, shared) for length in lengths)
    for budget in BUDGETS:
        # One token, and no distribution: nothing but the prompts.
        decoder = TreeDecoder(switch.model, setup.tokenizer, setup.template.price_format, 1, None, 0.0)
        batches = [[prompts[index] for index in batch] for batch in make_batches(lengths, budget)]
        rates, products = [], []
        for _ in range(3):
            products.append(product_rate())
            started = time.perf_counter()
            for batch in batches:
                decoder.predict(batch)
            rates.append(operations / (time.perf_counter() - started))
        products.append(product_rate())
        rate, product = statistics.median(rates), statistics.median(products)
        speed = f"{count * rate / operations:.1f} prompts/s, {rate / 1e9:.0f} GFLOP/s"
        print(f"batches of {budget} tokens: {speed}, {100 * rate / product:.0f} % of {product / 1e9:.0f}", flush=True)
    after = peak_memory(setup.precision.device)
    print(f"memory: {before / 1e6:.0f} MB before the base, {loaded / 1e6:.0f} with it, {after / 1e6:.0f} at most")


def count_operations(model: torch.nn.Module, length: int, shared: int) -> float:
    """Of a prompt whose first `shared` tokens are computed once for all."""
    config = model.config.get_text_config()  # type: ignore[union-attr,operator]
    own = length - shared
    weights = sum(module.in_features * module.out_features for name, module in linear_layers(model))
    attention = 2 * 2 * config.num_hidden_layers * config.hidden_size * (length**2 - shared**2) / 2
    return float(2 * weights * own + attention + 2 * config.hidden_size * config.vocab_size)


def linear_layers(model: torch.nn.Module) -> list[tuple[str, torch.nn.Linear]]:
    """All but the output layer."""
    output = model.get_output_embeddings()  # type: ignore[operator]
    return [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]


def product_rate() -> float:
    """Operations per second of a float32 matrix product."""
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    started = time.perf_counter()
    torch.mm(a, b)
    return float(2 * SIZE**3 / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
