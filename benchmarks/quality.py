"""Which way of training prices best? Trains variants with several seeds on the same items, and compares their prices.

    python benchmarks/quality.py prepare --data amazon --source FILE --base DIR --prepared FILE
    python benchmarks/quality.py train --data amazon --source FILE --base DIR --out FOLDER
    python benchmarks/quality.py train --prepared FILE --base DIR --device cuda --limit-s 200 --out FOLDER
    python benchmarks/quality.py train --data demo --out FOLDER
    python benchmarks/quality.py compare FOLDER…

Variants with the same base are trained side by side in one process (quality_lora.py). Results are written after each
epoch, so a training that is cut off by --limit-s leaves what it has. The same command again leaves out what is done in
the folder. `compare` prints a table for EXPERIMENTS.md.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from quality_compare import compare_folders, find_done
from quality_processes import append_line, make_tasks, run_tasks
from quality_variants import VARIANTS, Stack, plan_stacks


def main() -> None:
    """Prepare, train or compare."""
    arguments = _parser().parse_args()
    if arguments.command == "compare":
        print(compare_folders(arguments.folders))
    elif arguments.command == "prepare":
        _prepare(arguments, arguments.prepared)
    else:
        _train(arguments)


def _prepare(arguments: argparse.Namespace, path: Path) -> None:
    from quality_items import prepare_items, write_prepared

    since = time.monotonic()
    prepared = prepare_items(
        arguments.data,
        arguments.source,
        arguments.base,
        arguments.train_items,
        arguments.val_items,
        arguments.max_length,
    )
    write_prepared(prepared, path)
    print(f"prepared {prepared.data} in {time.monotonic() - since:.0f} s: {prepared.train}", file=sys.stderr)


def _train(arguments: argparse.Namespace) -> None:
    deadline = time.time() + arguments.limit_s
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    # Before torch is imported, and inherited by the processes.
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // arguments.workers)))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    path = arguments.prepared
    if path is None:
        path = out / f"{arguments.data}.prepared"
        _prepare(arguments, path)
    from quality_items import read_prepared

    prepared = read_prepared(path)
    names = list(VARIANTS) if arguments.variants == "all" else arguments.variants.split(",")
    if unknown := [name for name in names if name not in VARIANTS]:
        raise SystemExit(f"no such variants: {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    epochs = arguments.epochs or max(1, round(prepared.train.epochs))
    tokens = {form: sum(len(example.ids) for example in own.train) for form, own in prepared.prompts.items()}
    done = find_done(out, prepared.data)
    stacks = plan_stacks(names, arguments.seeds, arguments.stack)
    left = [Stack(tuple(job for job in stack.jobs if (job.variant, job.seed) not in done)) for stack in stacks]
    stacks = [stack for stack in left if stack.jobs]
    tasks = make_tasks(stacks, tokens, epochs, out, prepared.data)
    items = {"data": prepared.data, "ids": prepared.val_ids, "prices": prepared.val_prices}
    train = prepared.train.model_dump(mode="json") | {"epochs": epochs}
    precision = arguments.precision or ("bfloat16" if arguments.device == "cuda" else "float32")
    about = {
        "base": arguments.base or prepared.base,
        "device": arguments.device,
        "precision": precision,
        "train": train,
        "train_items": len(prepared.prompts["padded"].train),
        "says": {n: VARIANTS[n].says for n in names},
    }
    append_line(out / f"{prepared.data}-items.jsonl", items | about)
    settings = {
        "base": about["base"],
        "device": arguments.device,
        "dtype": precision,
        "epochs": epochs,
        "deadline": deadline,
        "workers": arguments.workers,
        "max_steps": arguments.max_steps,
        "embeddings": str(out),
    }
    run_tasks(tasks, path, prepared.data, settings, arguments.workers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "train"):
        command = commands.add_parser(name)
        command.add_argument("--data", default="demo", help="demo, or a name for the items of --source")
        command.add_argument("--source", help="file with the items")
        command.add_argument("--base", help="folder of the base")
        command.add_argument("--train-items", type=int)
        command.add_argument("--val-items", type=int)
        command.add_argument("--max-length", type=int, help="tokens of an item at most; longer descriptions are cut")
        command.add_argument("--prepared", type=Path, required=name == "prepare", help="what prepare wrote")
    command.add_argument("--variants", default="all", help=f"all, or some of {','.join(VARIANTS)}")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--epochs", type=int, help="default: what pricer's auto gives")
    command.add_argument("--max-steps", type=int, help="fewer steps, for a trial")
    command.add_argument("--workers", type=int, default=1, help="processes at the same time")
    command.add_argument("--stack", type=int, default=6, help="trainings side by side in one process")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--precision", choices=("float32", "bfloat16"), help="default: float32 on the CPU")
    command.add_argument("--limit-s", type=float, default=1e9)
    command.add_argument("--out", type=Path, required=True)
    command = commands.add_parser("compare")
    command.add_argument("folders", type=Path, nargs="+")
    return parser


if __name__ == "__main__":
    main()
