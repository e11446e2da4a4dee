"""What a big data set costs: seconds and memory to read, clean, deduplicate, split and tokenize it, and to start a
training on it. Also how many planted near-copies end in one split with their original.

    python benchmarks/data.py [ROWS] [FOLDER]

The rows (800,000 by default) have about 560 characters: sentences about made-up goods, recombined. One in twenty is a
near-copy of another row: other punctuation, case, spaces or markup, or one changed word. `pricer data` and
`pricer train` run in processes of their own, in FOLDER, a temporary one by default. Goals for 800,000 rows on 2 cores:
10 minutes and 3 GB for `pricer data`, 60 seconds and 3 GB until the first step of training, and 99 % of the pairs in
one split.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
_COPIES = 0.05
_KINDS, _SENTENCES, _PER_TEXT = 200, 150, 7
_ADJECTIVES = "sturdy light heavy slim wide plain bright quiet soft solid round square narrow deep handy spare"
_PARTS = "frame handle lid base shelf cord blade wheel hinge panel strap cover drawer knob spring plate tube rim"
_MATERIALS = "oak steel brass glass linen cork bamboo rubber wool nylon pine copper slate felt resin canvas"
_VERBS = "holds carries covers guards lifts joins keeps turns folds locks slides opens fits bears grips seals"
_PLACES = "kitchen garage garden office hall attic workshop bedroom studio cellar porch barn shed boat camper"
_EDITS = ("full stop", "commas", "capitals", "paragraph", "zero-width space", "entity", "spaces", "one word")


def main() -> None:
    """Make the rows, prepare them twice, start a training, and print what that costs and what became of the copies."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 800_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / f"goods-{rows}.jsonl"
        began = time.perf_counter()
        pairs = write_rows(source, rows)
        print(f"{rows:,} rows, {source.stat().st_size / 1e6:,.0f} MB (made in {time.perf_counter() - began:.0f} s)")
        (folder / "goods.yaml").write_text(f"data: {{source: {source.name}}}\nmodel: {{base: builtin:base}}\n")
        measure("pricer data", folder, "data", "goods.yaml", "--json")
        measure("pricer data again", folder, "data", "goods.yaml", "--json")
        start = ("train", "goods.yaml", "--set", "train.log_every=1", "--set", "train.val_items=0", "--run", "goods")
        measure("pricer train until its first step", folder, *start, until=folder / "runs" / "goods" / "metrics.jsonl")
        (prepared,) = (path.parent for path in folder.glob("data/*/train.parquet"))
        together = count_together(prepared, pairs)
        print(f"{together:,} of {len(pairs):,} planted pairs in one split ({together / len(pairs):.2%})")


def measure(what: str, folder: Path, *command: str, until: Path | None = None) -> None:
    """Run a command of pricer in a folder, and print its seconds and its most memory. It is killed when the file
    `until` has a line; None: it runs to its end.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pricer", *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    while until and process.poll() is None and not (until.exists() and until.stat().st_size):
        time.sleep(0.2)
    seconds = time.perf_counter() - began
    if until:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    assert until or status == 0, f"{what} failed"
    seconds = seconds if until else time.perf_counter() - began
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{what}: {seconds:.1f} s ({cpu:.1f} s of CPU), at most {usage.ru_maxrss / 1e6:.2f} GB", flush=True)


def write_rows(path: Path, count: int) -> set[float]:
    """Write rows, and return the prices of the planted pairs. Every original has a price of its own; its copy has the
    same.
    """
    generator = random.Random(1)
    sentences = [[_sentence(generator, kind) for _ in range(_SENTENCES)] for kind in range(_KINDS)]
    originals = round(count * (1 - _COPIES))
    copied = set(generator.sample(range(originals), count - originals))
    pairs = set[float]()
    with path.open("w", encoding="utf-8") as file:
        for number in range(originals):
            kind = number % _KINDS
            text = f"Model {number}. " + " ".join(generator.sample(sentences[kind], _PER_TEXT))
            price = round(5 + number / 100, 2)
            file.write(json.dumps({"description": text, "price": price}) + "\n")
            if number in copied:
                edit = _EDITS[len(pairs) % len(_EDITS)]
                file.write(json.dumps({"description": _edit(generator, text, edit), "price": price}) + "\n")
                pairs.add(price)
    return pairs


def _sentence(generator: random.Random, kind: int) -> str:
    lists = (_ADJECTIVES, _PARTS, _MATERIALS, _VERBS, _PLACES)
    adjective, part, material, verb, place = (generator.choice(words.split()) for words in lists)
    weight, size = generator.randint(2, 900), generator.randint(1, 99)
    first = f"The {adjective} {part} of {material} {verb} up to {weight} kg"
    return f"{first}, made for the {place}, type {kind} & {size}."


def _edit(generator: random.Random, text: str, edit: str) -> str:
    words = text.split(" ")
    place = generator.randrange(len(words))
    if edit == "one word":
        return " ".join([*words[:place], "renewed", *words[place + 1 :]])
    if edit == "zero-width space":
        return " ".join([*words[:place], words[place][:1] + "\u200b" + words[place][1:], *words[place + 1 :]])
    return {
        "full stop": text + ".",
        "commas": text.replace(",", ""),
        "capitals": text.upper(),
        "paragraph": f"<p>{text}</p>",
        "entity": text.replace("&", "&amp;"),
        "spaces": text.replace(". ", ".  "),
    }[edit]


def count_together(folder: Path, pairs: set[float]) -> int:
    """The number of pairs whose items are all in one split, or of which one was dropped as an exact copy."""
    prices = [set(pq.read_table(path, columns=["price"])["price"].to_pylist()) for path in _splits(folder)]
    return sum(sum(price in split for split in prices) == 1 for price in pairs)


def _splits(folder: Path) -> Iterator[Path]:
    return (folder / f"{split}.parquet" for split in ("train", "val", "test"))


if __name__ == "__main__":
    main()
