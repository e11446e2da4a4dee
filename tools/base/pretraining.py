"""Pretraining: the base model, its losses and optimisers, step by step."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tools.base.muon import Muon
from tools.base.supply import Batch
from tools.rendering import PRICE_WIDTH


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides what comes out."""

    seed: int = 20240
    threads: int = 1
    vocab_size: int = 1536
    hidden_size: int = 160
    layers: int = 5
    heads: int = 5
    intermediate_size: int = 480
    kinds: int = 100
    table_share: float = 0.12
    """Share of the items that come from real tables."""
    steps: int = 7600
    batch: int = 64
    full_attributes_at: int = 1600
    """From this step on items may name nine attributes; before, from two upwards."""
    warmup: int = 100
    decay_share: float = 0.6
    """Share of the steps, at the end, over which the learning rates fall to zero."""
    muon_rate: float = 0.004
    adam_rate: float = 0.004
    text_every: int = 20
    """Every so many steps the loss is that of all tokens, which keeps it a language model."""
    number_weight: float = 0.5
    price_weight: float = 1.0
    """Weights of two training aids that are thrown away: reading numbers and the price as a number."""
    report_every: int = 400


class Aids(nn.Module):
    """Two linear read-outs that help training and are not saved.

    One reads the logarithm of each number off the token behind it, half-way up. The other reads the log-price so
    far off the end of each phrase, and the log-price off the end of the prompt, one layer below the top. So each
    attribute is taught by itself, and magnitudes and sums take a linear form early.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.number = nn.Linear(hidden_size, 1)
        self.price = nn.Linear(hidden_size, 1)


class Run:
    """Model, optimisers and record of one pretraining run."""

    def __init__(self, plan: Plan, tokenizer: PreTrainedTokenizerFast) -> None:
        self.plan = plan
        self.tokenizer = tokenizer
        self.model = _make_model(plan, tokenizer)
        self.aids = Aids(plan.hidden_size)
        matrices = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        is_matrix = {id(p) for p in matrices}
        others = [p for p in (*self.model.parameters(), *self.aids.parameters()) if id(p) not in is_matrix]
        self.muon = Muon(matrices, momentum=0.95, weight_decay=0.05)
        self.adam = torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        digit_ids = tokenizer.convert_tokens_to_ids(list("0123456789"))
        self.digit_ids = torch.tensor(digit_ids)
        self.is_digit = torch.zeros(len(tokenizer), dtype=torch.bool)
        self.is_digit[digit_ids] = True
        self.digit_of_id = torch.zeros(len(tokenizer))
        self.digit_of_id[digit_ids] = torch.arange(10.0)
        self.point_id = tokenizer.convert_tokens_to_ids(".")
        self.step = 0
        self.recent: list[list[float]] = []
        self.curve: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def train_step(self, batch: Batch) -> None:
        """One update of all parameters."""
        factor = _schedule(self.plan, self.step)
        loss, parts = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.aids.parameters()], 1.0)
        self.muon.step(self.plan.muon_rate * factor)
        for group in self.adam.param_groups:
            group["lr"] = self.plan.adam_rate * factor
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        self.aids.zero_grad(set_to_none=True)
        self.recent.append(parts)
        self.step += 1

    def loss(self, batch: Batch) -> tuple[Tensor, list[float]]:
        """The training loss, and its parts: price digits, numbers read, price read."""
        # Right padding under a causal mask needs no attention mask: no real token sees the padding.
        output = self.model.model(input_ids=batch.tokens, output_hidden_states=True, use_cache=False)
        hidden, middle = output.last_hidden_state, output.hidden_states[self.plan.layers // 2]
        if (self.step + 1) % self.plan.text_every == 0:
            mask = batch.tokens[:, 1:] != self.tokenizer.pad_token_id
            digits = functional.cross_entropy(self.model.lm_head(hidden[:, :-1][mask]), batch.tokens[:, 1:][mask])
        else:
            places = batch.lengths[:, None] - 1 + torch.arange(PRICE_WIDTH + 1)
            at_price = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
            targets = batch.tokens.gather(1, places + 1)
            digits = functional.cross_entropy(self.model.lm_head(at_price).flatten(0, 1), targets.flatten())
        # The layer below the top, so that the top one is left to turn the sum into digits.
        below = output.hidden_states[self.plan.layers - 1]
        rows, columns = batch.running_places
        summed = torch.cat([below[torch.arange(len(below)), batch.lengths - 1], below[rows, columns]])
        price = functional.smooth_l1_loss(
            self.aids.price(summed)[:, 0], torch.cat([batch.log_prices, batch.running]) - 6.5, beta=0.3
        )
        mask, values = self._numbers(batch)
        number = functional.smooth_l1_loss(self.aids.number(middle[mask])[:, 0], values - 4.0, beta=0.3)
        loss = digits + self.plan.number_weight * number + self.plan.price_weight * price
        return loss, [digits.item(), number.item(), price.item()]

    def _numbers(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Where a whole number has just ended, and its log, over the batch's prompts."""
        is_digit = self.is_digit[batch.tokens]
        digits = self.digit_of_id[batch.tokens]
        value = torch.zeros(len(batch.tokens))
        mask = torch.zeros_like(is_digit)
        values = torch.zeros(batch.tokens.shape)
        for place in range(1, int(batch.lengths.max())):
            before = is_digit[:, place - 1]
            value = torch.where(before, value * 10 + digits[:, place - 1], 0.0)
            mask[:, place] = before & ~is_digit[:, place] & (value > 0)
            # A decimal point is no end, and what follows it no whole number.
            mask[:, place] &= batch.tokens[:, place] != self.point_id
            values[:, place] = value
        mask &= torch.arange(mask.shape[1]) < batch.lengths[:, None]
        return mask, values[mask].log()

    def report(self, held_out: dict[str, list[Batch]]) -> None:
        """Measure, print and record."""
        means = np.mean(self.recent, axis=0)
        record: dict[str, Any] = {"step": self.step, "train_loss": round(float(means[0]), 4)}
        record["number_aid"], record["price_aid"] = round(float(means[1]), 4), round(float(means[2]), 4)
        for name, batches in held_out.items():
            record[name] = _measure(self.model, batches, self.digit_ids)
        self.recent = []
        self.curve.append(record)
        print(f"{time.monotonic() - self.started:6.0f} s", json.dumps(record), flush=True)

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on as if it had never stopped."""
        return {
            "plan": asdict(self.plan),
            "step": self.step,
            "model": self.model.state_dict(),
            "aids": self.aids.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "recent": self.recent,
            "curve": self.curve,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a saved state of the same plan."""
        if state["plan"] != asdict(self.plan):
            raise SystemExit("The saved state is of another plan: remove it or choose another --out.")
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.aids.load_state_dict(state["aids"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.recent, self.curve = state["recent"], state["curve"]


def _schedule(plan: Plan, step: int) -> float:
    """Warm up, stay, fall linearly to zero."""
    decay_steps = plan.decay_share * plan.steps
    return min(1.0, (step + 1) / plan.warmup, (plan.steps - step) / decay_steps)


def _make_model(plan: Plan, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.hidden_size,
        intermediate_size=plan.intermediate_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.02,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def _measure(model: LlamaForCausalLM, batches: list[Batch], digit_ids: Tensor) -> dict[str, float]:
    """Loss per price token given the true digits before it, and the median relative error of greedy prices."""
    losses: list[float] = []
    errors: list[float] = []
    for batch in batches:
        rows = torch.arange(len(batch.tokens))
        tokens = batch.tokens.clone()
        places = batch.lengths[:, None] - 1 + torch.arange(PRICE_WIDTH + 1)
        targets = tokens.gather(1, places + 1)
        logits = model(input_ids=tokens).logits[rows[:, None], places]
        losses += functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1).tolist()
        predicted = torch.zeros(len(rows))
        for place in places.T[:PRICE_WIDTH]:
            digit = model(input_ids=tokens).logits[rows, place][:, digit_ids].argmax(1)
            tokens[rows, place + 1] = digit_ids[digit]
            predicted = predicted * 10 + digit
        price = batch.log_prices.exp()
        errors += ((predicted - price).abs() / price).tolist()
    return {"loss": round(float(np.mean(losses)), 4), "median_error": round(float(np.median(errors)), 4)}
