"""benchmarks/quality.py: what its comparison of variants rests on."""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from quality_compare import difference_interval, find_done
from quality_items import find_neighbours, prepare_items
from quality_lora import AdapterStack
from quality_losses import LOSSES, Places, crps, mean_error
from quality_training import Run, train_stack
from quality_variants import BASELINE, VARIANTS, Job, Stack, plan_stacks

from pricer.config import AdapterConfig, ModelConfig
from pricer.core.items import Item
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base
from pricer.ml.devices import Precision
from pricer.ml.loss import completion_loss, logits_only_at
from pricer.stores.bases import find_base

PLACES = 3


@pytest.fixture
def places() -> Places:
    random = torch.Generator().manual_seed(3)
    p_ID = tuple(torch.rand((4, 10), generator=random, dtype=torch.float64).softmax(-1) for _ in range(PLACES))
    y_I = tuple(torch.randint(10, (4,), generator=random) for _ in range(PLACES))
    return Places(p_ID, y_I, (100, 10, 1))


def spread_over_prices(places: Places, item: int) -> tuple[np.ndarray, int]:
    """The probability of each of 1,000 prices, equal within a wrong prefix; and the right price."""
    right = [int(y[item]) for y in places.y_I]
    shares = np.zeros(1000)
    for digits in itertools.product(range(10), repeat=PLACES):
        price = int("".join(map(str, digits)))
        share = 1.0
        for place, digit in enumerate(digits):
            is_on_path = list(digits[:place]) == right[:place]
            share *= float(places.p_ID[place][item, digit]) if is_on_path else 0.1
        shares[price] = share
    return shares, int("".join(map(str, right)))


def test_the_crps_of_digits_is_that_of_the_whole_distribution(places: Places) -> None:
    for item in range(4):
        shares, right = spread_over_prices(places, item)
        expected = ((shares.cumsum() - (np.arange(1000) >= right)) ** 2).sum()

        assert float(crps(places)[item]) == pytest.approx(expected, rel=1e-9)


def test_the_mean_of_digits_is_that_of_the_whole_distribution(places: Places) -> None:
    for item in range(4):
        shares, right = spread_over_prices(places, item)

        assert float(mean_error(places)[item]) == pytest.approx((shares * np.arange(1000)).sum() - right, rel=1e-9)


def test_stacked_adapters_train_as_each_does_alone_with_peft() -> None:
    folder = find_base(ModelConfig(base="builtin:base")).folder
    precision = Precision("cpu", "none", "float32")
    ids_BT = torch.randint(5, 1000, (4, 12), generator=torch.Generator().manual_seed(0))
    spans = [(9, 12)] * 2
    seeds = [1, 2]
    stacked = load_base(folder, precision)
    stack = AdapterStack(stacked, [VARIANTS["d0"]] * 2, seeds)
    alone = [
        add_adapter(load_base(folder, precision), AdapterConfig(r=32, alpha=64, dropout=0.0), seed) for seed in seeds
    ]
    layers = {name: module for name, module in stacked.named_modules() if hasattr(module, "a_KRI")}
    for k, model in enumerate(alone):
        for name, layer in layers.items():
            model.get_submodule(f"base_model.model.{name}.lora_A.default").weight.data.copy_(layer.a_KRI[k])
    optimizers = [
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
        for model in alone
    ]
    positions = torch.tensor([12 * row + column for row in range(4) for column in (8, 9, 10)])
    for _ in range(3):
        with logits_only_at(stacked, positions):
            logits_NV = stacked(input_ids=ids_BT, use_cache=False).logits[0]
        torch.nn.functional.cross_entropy(logits_NV, ids_BT.flatten()[positions + 1], reduction="sum").backward()  # type: ignore[no-untyped-call]
        stack.step(0.01, 0.1, 0.5)
        for k, (model, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            completion_loss(model, ids_BT[2 * k : 2 * k + 2], spans).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()

    for k, model in enumerate(alone):
        stack.only = k
        with torch.no_grad():
            expected = model(input_ids=ids_BT).logits
            torch.testing.assert_close(stacked(input_ids=ids_BT).logits, expected, rtol=1e-3, atol=1e-3)


def test_every_job_is_in_one_stack_and_the_baseline_is_trained_first() -> None:
    stacks = plan_stacks(list(VARIANTS), seeds=3, size=6)

    jobs = [job for stack in stacks for job in stack.jobs]
    assert sorted(jobs, key=str) == sorted((Job(name, seed) for name in VARIANTS for seed in range(3)), key=str)
    assert [Job(BASELINE, seed) in stack.jobs for seed, stack in enumerate(stacks[:3])] == [True] * 3
    assert all(len({variant.stack for variant in stack.variants}) == 1 for stack in stacks)


def test_neighbours_are_never_the_item_itself_nor_a_near_copy_of_it() -> None:
    words = ["red", "blue", "green", "small", "large", "wooden", "metal", "plastic", "table", "chair", "lamp", "shelf"]
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(words, 12)) for _ in range(20)]
    texts[7] = texts[3].upper()
    items = [Item(str(index), text, 10.0) for index, text in enumerate([*texts, texts[5]])]

    found = find_neighbours(items[:20], items[20:], 0.8)

    assert all(index not in row for index, row in enumerate(found.tolist()))
    assert 7 not in found[3]
    assert 3 not in found[7]
    assert 5 not in found[20]


def test_the_interval_of_a_constant_difference_is_that_difference() -> None:
    errors = np.random.default_rng(0).random((3, 50))

    assert difference_interval(errors + 2, errors) == pytest.approx((2, 2, 2))


def test_a_variant_that_fails_leaves_a_line_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_items("demo", None, None, 32, 6)
    monkeypatch.setitem(LOSSES, "ntl03", lambda answers: answers.logits_NV[:, 10**6].sum())
    lines: list[dict[str, Any]] = []
    stack = Stack((Job("ce", 0), Job("ntl03", 0), Job("plain", 0)))

    run = Run("builtin:base", "cpu", "float32", epochs=2, deadline=time.time() + 600)
    train_stack(prepared, stack, run, lines.append)

    done = [(line["variant"], line["epoch"]) for line in lines if "error" not in line]
    assert done == [("ce", 1), ("plain", 1), ("ce", 2), ("plain", 2)]
    assert all(len(line["median"]) == 6 for line in lines if "error" not in line)
    assert [(line["variant"], "index" in line["error"]) for line in lines if "error" in line] == [("ntl03", True)]


def test_at_the_deadline_every_job_has_a_line() -> None:
    lines: list[dict[str, Any]] = []
    prepared = prepare_items("demo", None, None, 32, 6)

    run = Run("builtin:base", "cpu", "float32", epochs=2, deadline=0)
    train_stack(prepared, Stack((Job("d0", 0), Job("ce", 0))), run, lines.append)

    assert [line["error"] for line in lines] == ["time was up after step 0 of 4"] * 2


def test_what_has_its_last_epoch_is_done_and_what_was_killed_is_not(tmp_path: Path) -> None:
    lines = [
        {"data": "demo", "variant": variant, "seed": seed, "epoch": epoch, "epochs": 2}
        for variant, seed, epoch in (("ce", 0, 1), ("ce", 0, 2), ("ce", 1, 1), ("d0", 0, 2))
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"data": "demo", "vari'
    (tmp_path / "demo-00-ce-s0.jsonl").write_text(text, encoding="utf-8")

    assert find_done(tmp_path, "demo") == {("ce", 0), ("d0", 0)}
    assert find_done(tmp_path, "other") == set()
