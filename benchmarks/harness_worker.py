"""The `hf` backend of lm-evaluation-harness as a process that answers the same prompts again and again.

    PYTHON benchmarks/harness_worker.py BASE ADAPTER PROMPTS MAX_LENGTH ANSWER_TOKENS BATCH_SIZE

PYTHON has `lm_eval[hf]` installed; pricer is not needed. PROMPTS is a JSON list of texts. For each line on standard
input, the worker answers all prompts and prints one JSON line with its seconds and the answers. BATCH_SIZE is a
number, or `auto`: the worker searches for it before it answers.
"""

import json
import os
import sys
import time
from pathlib import Path

from lm_eval.api.instance import Instance  # type: ignore[import-not-found]  # installed for the harness alone
from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]


def main() -> None:
    """Load the model, then answer until standard input ends."""
    base, adapter, prompts, max_length, answer_tokens, batch_size = sys.argv[1:]
    # The harness prints its progress to standard output. Only the results belong there.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = HFLM(
        pretrained=base,
        peft=adapter,
        dtype="float32",
        device="cpu",
        batch_size=batch_size,
        max_length=int(max_length),
    )
    # The search for a batch size is a part of the start, so it happens once.
    if batch_size == "auto":
        size = model._detect_batch_size()
        model._detect_batch_size = lambda *_, **__: size
    settings = {"until": ["\n"], "do_sample": False, "max_gen_toks": int(answer_tokens)}
    requests = [
        Instance("generate_until", {}, (text, settings), index)
        for index, text in enumerate(json.loads(Path(prompts).read_text(encoding="utf-8")))
    ]
    print(json.dumps({"batch_size": size if batch_size == "auto" else int(batch_size)}), file=results, flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        answers = model.generate_until(requests, disable_tqdm=True)
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({**seconds, "answers": answers}), file=results, flush=True)


if __name__ == "__main__":
    main()
