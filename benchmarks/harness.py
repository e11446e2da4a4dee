"""Scoring every checkpoint of a run, against lm-evaluation-harness: its `hf` backend with `peft=`, batch size auto, one
process per checkpoint.

    python benchmarks/harness.py RUN_FOLDER PYTHON [ITEMS]

PYTHON is an interpreter that has `lm_eval[hf]` installed; the base is loaded in float32, so the run's should be, too
(`model.quantization: none`). Both answer the prompts of the same validation items; ours reads the whole distribution of
each price. Whole processes are timed, and what the harness takes to start is measured by asking it about one item,
before all others and after them; a first time, from a cold disk, does not count.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pricer.commands.parts.setup import Setup, prepare
from pricer.stores.runs import Run


def main() -> None:
    """Print the seconds of both by checkpoint, and the ratios over all."""
    run, python = Run(Path(sys.argv[1]).resolve()), Path(sys.argv[2]).absolute()
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 250
    setup = prepare(run.config())
    checkpoints = run.store.checkpoints()
    folders = [run.store.fetch(checkpoint) for checkpoint in checkpoints]
    with tempfile.TemporaryDirectory() as scratch:
        task = write_task(Path(scratch), setup, count)
        _, *starts = (harness(python, task, setup, folders[0], 1)[0] for _ in range(2))
        whole, scoring, answers = ours(run, Path(scratch), count)
        speed = count / scoring
        print(f"ours: {whole:.1f} s for all {len(checkpoints)}, {speed:.2f} items/s without starting", flush=True)
        theirs = []
        for checkpoint, folder in zip(checkpoints, folders, strict=True):
            seconds, said = harness(python, task, setup, folder, count)
            theirs.append(seconds)
            same = sum(a == b for a, b in zip(answers[checkpoint.id], said, strict=True))
            print(f"{checkpoint.name}: harness {seconds:.1f} s; {same} of {count} answers are the same", flush=True)
        starts.append(harness(python, task, setup, folders[-1], 1)[0])
    starting = statistics.mean(starts)
    print(f"the harness takes {starting:.1f} s to start and answer one prompt: {', '.join(f'{s:.1f}' for s in starts)}")
    per_item = (statistics.mean(theirs) - starting) / (count - 1)
    print(f"the harness: {1 / per_item:.2f} items/s without starting; ours are {per_item * speed:.2f} times that")
    print(f"{len(checkpoints)} checkpoints x {count} items: {sum(theirs):.0f} s and {whole:.0f} s, ", end="")
    print(f"{sum(theirs) / whole:.2f} times faster")


def write_task(folder: Path, setup: Setup, count: int) -> Path:
    """The harness's description of the same question: the prompts as they are, and the answer up to the end."""
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:count]])
    lines = [
        {"prompt": setup.tokenizer.decode(prompt.ids, skip_special_tokens=True), "price": str(item.price)}
        for prompt, item in zip(prompts, setup.items.val, strict=False)
    ]
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    task = {
        "task": "price",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{price}}",
        "target_delimiter": "",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": setup.encoder.answer_tokens},
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "price.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML, too
    return folder


def harness(python: Path, task: Path, setup: Setup, adapter: Path, count: int) -> tuple[float, list[str]]:
    """Seconds that a process of the harness takes, and what it got for answers."""
    output = task / "output"
    shutil.rmtree(output, ignore_errors=True)
    length = f"max_length={setup.template.max_length + 8}"
    arguments = {
        "--model": "hf",
        "--model_args": f"pretrained={setup.base.folder},peft={adapter},dtype=float32,{length}",
        "--tasks": "price",
        "--include_path": str(task),
        "--batch_size": "auto",
        "--device": "cpu",
        "--limit": str(count),
        "--output_path": str(output),
    }
    command = [str(python), "-m", "lm_eval", "--log_samples", *(part for pair in arguments.items() for part in pair)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=task)
    seconds = time.perf_counter() - started
    (samples,) = output.rglob("samples_price_*.jsonl")
    records = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return seconds, [r["filtered_resps"][0] for r in sorted(records, key=lambda record: record["doc_id"])]


def ours(run: Run, scratch: Path, count: int) -> tuple[float, float, dict[str, list[str]]]:
    """Seconds of a `pricer eval --all-checkpoints` as a whole, and of the answers in it; and what the greedy ones were,
    by revision. The harness scores no baselines, so they are there before.
    """
    copy = scratch / "runs" / run.name
    shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns("evaluations", "state", "wandb"))
    evaluate = [sys.executable, "-m", "pricer", "eval", "--run", run.name, "--limit", str(count)]
    subprocess.run([*evaluate, "--checkpoint", "last"], check=True, capture_output=True, cwd=scratch)
    for path in copy.glob("evaluations/*/evaluation.json"):
        if json.loads(path.read_text(encoding="utf-8"))["revision"] is not None:
            shutil.rmtree(path.parent)
    began = time.time()
    subprocess.run([*evaluate, "--all-checkpoints"], check=True, capture_output=True, cwd=scratch)
    seconds = time.time() - began
    said, ends, ids = {}, [], [item.id for item in prepare(run.config()).items.val[:count]]
    for evaluation in Run(copy).evaluations.all():
        if evaluation.candidate.id is not None:
            batches = Run(copy).evaluations.predictions(evaluation.candidate.id, evaluation.spec)
            by_id = {p.item_id: p.completion for batch in batches for p in batch}
            said[evaluation.candidate.id] = [by_id[key] for key in ids]
            folder = copy / "evaluations" / f"{evaluation.candidate.id}-{evaluation.spec.fingerprint}"
            ends.append((folder / "evaluation.json").stat().st_mtime)
    # Between two ends lie the answers of one checkpoint; what came before the first has starting in it.
    ends.sort()
    scoring = (ends[-1] - ends[0]) / (len(ends) - 1)
    return seconds, scoring, said


if __name__ == "__main__":
    main()
