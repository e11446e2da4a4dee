"""What reading whole distributions costs: greedy answers alone, by `generate`, and everything, in turns.

    python benchmarks/decoding.py [REPEATS] [BASE] [DATA]

BASE is a folder with a base model and DATA a file of items (defaults: those that come along), with a new adapter that
changes nothing: its distributions are as wide as any, which is the dearest case. The time is that of the process, which
what else runs on the machine disturbs less than the clock's.
"""

import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.commands.parts.setup import prepare
from pricer.config import DataConfig, ModelConfig, PromptConfig, RunConfig
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base, mixed_precision
from pricer.ml.batches import make_batches
from pricer.ml.predict import TreeDecoder
from pricer.ml.tokens import TokenizedPrompt


def main() -> None:
    """Print the seconds of each repeat, and the median of their ratios."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    repeats, base, data = (*sys.argv[1:], *["5", "builtin:base", "builtin:computers"][len(sys.argv) - 1 :])
    config = RunConfig(
        model=ModelConfig(base=base),
        data=DataConfig(source=data, val_limit=618 if base.startswith("builtin:") else 64),
        prompt=PromptConfig(max_length=96 if base.startswith("builtin:") else 128),
    )
    setup = prepare(config)
    model = add_adapter(load_base(setup.base.folder, setup.precision), config.adapter, seed=0).eval()
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val])
    batches = [
        [prompts[index] for index in batch]
        for batch in make_batches([len(prompt.ids) for prompt in prompts], setup.batch_tokens)
    ]
    length = setup.encoder.answer_tokens
    decoder = TreeDecoder(
        *(model, setup.tokenizer, setup.template.price_format, length), setup.price_tokens, config.eval.residual_mass
    )

    def greedy(batch: Sequence[TokenizedPrompt]) -> list[str]:
        return generate(model, setup.tokenizer, batch, length)

    def seconds(predict: Callable[[Sequence[TokenizedPrompt]], object]) -> float:
        start = time.process_time()
        for batch in batches:
            predict(batch)
        return time.process_time() - start

    seconds(decoder.predict)  # the first time anything runs, it takes longer
    ratios = []
    for _ in range(int(repeats)):
        alone, whole = seconds(greedy), seconds(decoder.predict)
        ratios.append(whole / alone)
        print(f"{len(prompts)} items: greedy {alone:.2f} s, distributions {whole:.2f} s, {ratios[-1]:.2f}", flush=True)
    print(f"median of {repeats}: {statistics.median(ratios):.2f} times the greedy answers alone")


def generate(model: Any, tokenizer: Any, prompts: Sequence[TokenizedPrompt], length: int) -> list[str]:
    """The greedy completions of a batch, by transformers' `generate`."""
    batch = tokenizer.pad(
        {"input_ids": [prompt.ids.tolist() for prompt in prompts]}, padding_side="left", return_tensors="pt"
    ).to(model.device)
    config = GenerationConfig(
        max_new_tokens=length, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    with torch.inference_mode(), mixed_precision(model):
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=config,
        )
    completions: list[str] = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return completions


if __name__ == "__main__":
    main()
