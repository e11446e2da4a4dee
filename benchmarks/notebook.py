"""Scoring every checkpoint of a run, against the way of the notebooks: load base and adapter per revision, then
generate for one prompt at a time.

    python benchmarks/notebook.py RUN_FOLDER [ITEMS]

Both score the same validation items with the same prompts at the same precision, in turns, checkpoint by checkpoint.
Ours reads the whole distribution of each price, as `pricer eval` does. In float32, the greedy answers of both must be
the same. In 16 bits, two prices can be so nearly equal that a batch of another size puts them in another order, so the
number of equal answers is printed.
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from peft import PeftModel
from transformers import GenerationConfig

from pricer.commands.parts.opening import load_scorer
from pricer.commands.parts.setup import prepare
from pricer.ml.base import load_base, mixed_precision
from pricer.ml.batches import find_batch_tokens, make_batches
from pricer.stores.runs import Run


def main() -> None:
    """Print items per second of both, by checkpoint, and the ratio over all."""
    run, count = Run(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    setup = prepare(run.config())
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:count]])
    lengths = [len(prompt.ids) for prompt in prompts]
    started = time.perf_counter()
    scorer = load_scorer(setup)
    # As `pricer eval` does: once for all checkpoints.
    affordable = len(run.store.checkpoints()) * sum(lengths) // 20
    budget = find_batch_tokens(prompts, affordable, lambda: scorer) or setup.batch_tokens
    batches = make_batches(lengths, budget)
    loading = time.perf_counter() - started
    print(f"{len(prompts)} prompts of {statistics.mean(lengths):.0f} tokens; {loading:.1f} s to load and try batches")
    ours, theirs, ratios = [], [], []
    for checkpoint in run.store.checkpoints():
        folder = run.store.fetch(checkpoint)
        started = time.perf_counter()
        scorer.use(folder)
        answers = {p.item_id: p.completion for b in batches for p in scorer.predict([prompts[i] for i in b])}
        ours.append(time.perf_counter() - started)

        started = time.perf_counter()
        model = PeftModel.from_pretrained(load_base(setup.base.folder, setup.precision), folder).eval()
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=setup.encoder.answer_tokens,
            eos_token_id=setup.tokenizer.eos_token_id,
            pad_token_id=setup.tokenizer.pad_token_id,
        )
        texts = {}
        with torch.inference_mode(), mixed_precision(model):
            for prompt in prompts:
                ids = torch.from_numpy(prompt.ids).long()[None].to(model.device)
                output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
                texts[prompt.item_id] = setup.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        theirs.append(time.perf_counter() - started)
        equal = sum(texts[name] == answer for name, answer in answers.items())
        assert equal == len(prompts) or setup.precision.dtype != "float32", f"{equal} of {len(prompts)} are the same"
        ratios.append(theirs[-1] / ours[-1])
        speeds = f"{len(prompts) / ours[-1]:.1f} items/s, one at a time {len(prompts) / theirs[-1]:.1f}"
        same = f"{equal} of {len(prompts)} answers the same"
        print(f"{checkpoint.name}: {speeds}; ratio {ratios[-1]:.2f}; {same}", flush=True)
    total = sum(theirs) / (loading + sum(ours))
    print(f"median ratio {statistics.median(ratios):.2f}; over all checkpoints, with loading, {total:.2f}")


if __name__ == "__main__":
    main()
