"""Trains and scores a stack of jobs, for benchmarks/quality.py. A process of its own runs one stack.

Shape suffixes: K jobs, B items of one job, T tokens in a row, N scored tokens, V vocabulary.
"""

import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_items import Prepared, PromptSet
from quality_lora import AdapterStack
from quality_losses import LOSSES, Answers
from quality_variants import Stack

from pricer.config import ModelConfig
from pricer.ml.base import load_base, load_tokenizer, mixed_precision
from pricer.ml.batches import EpochOrder, free_memory, is_out_of_memory, make_batches, right_padded_ids
from pricer.ml.block_attention import attention_in_float32
from pricer.ml.devices import Precision
from pricer.ml.loss import logits_only_at, make_causal_mask
from pricer.ml.predict import TreeDecoder, embed_prompts
from pricer.ml.tokens import TokenizedExample
from pricer.ml.validation import total_loss
from pricer.stores.bases import find_base

Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Run:
    """How stacks are trained: where, for how many epochs, until when (time.time()), and with how many processes.
    `embeddings` is a folder for the prompts' embeddings by the variant `ce`; None: they are not computed.
    """

    base: str
    device: str
    dtype: str
    epochs: int
    deadline: float
    workers: int = 1
    max_steps: int | None = None
    embeddings: str | None = None


def train_stack(prepared: Prepared, stack: Stack, run: Run, write: Write) -> None:
    """Train the jobs of a stack, and write a line for each of them after each epoch, or with its error."""
    failed: dict[int, str] = {}
    try:
        _Training(prepared, stack, run, write, failed).run()
    except BaseException as error:  # the line is all that is known of what happened in this process
        traceback.print_exc()
        for k in range(len(stack.jobs)):
            failed.setdefault(k, f"{type(error).__name__}: {error}"[:500])
    for k, why in failed.items():
        write(error_line(prepared, stack, k, why))


def error_line(prepared: Prepared, stack: Stack, k: int, why: str) -> dict[str, Any]:
    """The line of a job that has no results."""
    return {"data": prepared.data, "variant": stack.jobs[k].variant, "seed": stack.jobs[k].seed, "error": why}


# Bytes of activations for each token, layer, hidden value and byte of a value: 1.5 MB a token for SmolLM2 in bfloat16.
_ACTIVATIONS = 45
_CPU_BYTES = 4e9


def _tokens_at_once(model: Any, run: Run) -> int:
    """The tokens of one pass that fit into this process's share of memory. On the CPU nothing says that it runs out."""
    config = model.config.get_text_config()
    total = torch.cuda.get_device_properties(0).total_memory * 0.8 if run.device == "cuda" else _CPU_BYTES
    a_token = _ACTIVATIONS * model.dtype.itemsize * config.num_hidden_layers * config.hidden_size
    return int(total / run.workers / a_token)


class _Training:
    """One stack's training. `failed` gets the reason of each job that failed, whose gradients are then zero."""

    def __init__(self, prepared: Prepared, stack: Stack, run: Run, write: Write, failed: dict[int, str]) -> None:
        self.prepared, self.stack, self.how, self.write, self.failed = prepared, stack, run, write, failed
        self.began = time.time()
        folder = find_base(ModelConfig(base=run.base)).folder if run.base.startswith("builtin:") else Path(run.base)
        variants = stack.variants
        self.tokenizer = load_tokenizer(folder)
        self.model = load_base(folder, Precision(run.device, variants[0].quantization, run.dtype))
        seeds = [job.seed for job in stack.jobs]
        torch.manual_seed(seeds[0])
        self.adapters = AdapterStack(self.model, variants, seeds)
        self.sets: list[PromptSet] = [prepared.prompts[variant.prompts] for variant in variants]
        self.config = prepared.train
        lengths = [len(example.ids) for example in self.sets[0].train]
        # The lengths of the first form of prompts: all variants of a seed get the same items in the same batches.
        self.orders = [EpochOrder(lengths, self.config.batch_size, seed) for seed in seeds]
        self.steps_per_epoch = math.ceil(len(lengths) / self.config.batch_size)
        self.room, self.part = _tokens_at_once(self.model, run), self.config.batch_size
        # On the device: to read it in each step would make the GPU wait for the next one.
        self.losses = torch.zeros(len(seeds), device=self.model.device)
        self.digits = [
            [torch.from_numpy(ids).to(self.model.device) for ids in own.price_tokens]
            if isinstance(own.price_tokens, tuple) and own.price_format.width is not None
            else None
            for own in self.sets
        ]

    def run(self) -> None:
        """Train all epochs, until the deadline."""
        steps, step, training = self.how.epochs * self.steps_per_epoch, 0, 0.0
        if self.how.max_steps:
            steps = min(steps, self.how.max_steps)
        for epoch in range(1, self.how.epochs + 1):
            for batch in self._batches(epoch - 1):
                if step == steps:
                    break
                if time.time() > self.how.deadline:
                    return self._give_up(step, steps)
                since = time.perf_counter()
                self._step(batch, self._rate(step, steps))
                step += 1
                training += time.perf_counter() - since
                if step in (5, 20, 100):
                    self._say(f"{training / step:.3f} s a step, {step} of {steps}")
            self._score_epoch(epoch, step, steps, training)
            self.losses.zero_()
        return None

    def _say(self, text: str) -> None:
        used = f", {torch.cuda.max_memory_reserved() / 1e9:.0f} GB" if self.how.device == "cuda" else ""
        print(f"{self.stack.name}: {text}{used}", file=sys.stderr, flush=True)

    def _give_up(self, step: int, steps: int) -> None:
        for k in range(len(self.stack.jobs)):
            self.failed.setdefault(k, f"time was up after step {step} of {steps}")

    def _rate(self, step: int, steps: int) -> float:
        """Transformers' cosine schedule with warm-up."""
        warm_up = math.ceil(self.config.warmup * steps)
        if step < warm_up:
            share = step / max(1, warm_up)
        else:
            share = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
        rate: float = self.config.learning_rate
        return rate * share

    def _batches(self, epoch: int) -> Iterator[list[list[TokenizedExample]]]:
        """Batches of an epoch: for each job its items."""
        orders = []
        for order in self.orders:
            order.set_epoch(epoch)
            orders.append(list(order))
        size = self.config.batch_size
        for start in range(0, len(orders[0]), size):
            yield [
                [own.train[index] for index in order[start : start + size]]
                for own, order in zip(self.sets, orders, strict=True)
            ]

    def _step(self, batch: Sequence[Sequence[TokenizedExample]], rate: float) -> None:
        """One step of all jobs. If memory runs out, it is repeated in smaller parts."""
        self.model.train()
        self.adapters.only = None
        while True:
            try:
                losses = self._accumulate(batch)
                break
            except Exception as error:
                if not is_out_of_memory(error) or self.part == 1:
                    raise
            self.adapters.gradients_KP.zero_()
            free_memory()
            self.part = -(-self.part // 2)
            self._say(f"memory ran out, parts of {self.part} items from now on")
        self.adapters.step(rate, self.config.weight_decay, self.config.max_grad_norm)
        self.losses += losses

    def _accumulate(self, batch: Sequence[Sequence[TokenizedExample]]) -> torch.Tensor:
        """Add up the gradients of a batch. Returns each job's loss (K,)."""
        totals = torch.zeros(len(batch), device=self.model.device)
        counts = [sum(len(e.ids) - e.start for e in examples) for examples in batch]
        longest = max(len(e.ids) for examples in batch for e in examples)
        size = min(self.part, max(1, self.room // (len(batch) * longest)))
        for first in range(0, len(batch[0]), size):
            parts = [examples[first : first + size] for examples in batch]
            with mixed_precision(self.model), attention_in_float32(self.model):
                answers = self._answers(parts, counts, len(batch[0]))
                losses = [self._loss(k, one) for k, one in enumerate(answers)]
            alive = [loss for loss in losses if loss is not None]
            if not alive:
                raise RuntimeError("; ".join(sorted(set(self.failed.values()))))
            torch.stack(alive).sum().backward()  # type: ignore[no-untyped-call]
            for k, loss in enumerate(losses):
                if loss is not None:
                    totals[k] += loss.detach()
        return totals

    def _loss(self, k: int, answers: Answers) -> torch.Tensor | None:
        """The loss of a job; None if it failed."""
        if k in self.failed:
            return None
        try:
            return LOSSES[self.stack.variants[k].loss](answers)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            traceback.print_exc()
            self.failed[k] = f"{type(error).__name__}: {error}"[:500]
            return None

    def _answers(self, parts: Sequence[Sequence[TokenizedExample]], counts: Sequence[int], items: int) -> list[Answers]:
        """The logits of each job's items, from one pass of the model."""
        ids_BT = torch.from_numpy(right_padded_ids([e.ids for part in parts for e in part], 0))
        width, row = ids_BT.shape[1], 0
        positions: list[list[int]] = []
        for part, variant in zip(parts, self.stack.variants, strict=True):
            prompt, completion = list[int](), list[int]()
            for example in part:
                # The logits for a token are at the position before it.
                start = row * width - 1
                completion += range(start + example.start, start + len(example.ids))
                prompt += range(start + 1, start + example.start) if variant.loss.startswith("prompt") else ()
                row += 1
            positions += [completion, prompt]
        index_N = torch.tensor([one for some in positions for one in some]).to(self.model.device, non_blocking=True)
        ids_BT = ids_BT.to(self.model.device, non_blocking=True)
        with logits_only_at(self.model, index_N):
            logits_NV = self.model(
                input_ids=ids_BT, attention_mask=make_causal_mask(self.model, width), use_cache=False
            ).logits[0]
        sizes = [len(some) for some in positions]
        logits, targets = torch.split(logits_NV, sizes), torch.split(ids_BT.flatten()[index_N + 1], sizes)
        return [
            Answers(
                logits_NV=logits[2 * k],
                targets_N=targets[2 * k],
                count=counts[k],
                items=items,
                digits=self.digits[k],
                median=self.prepared.fallback / self.prepared.price_step,
                prompt_logits_NV=logits[2 * k + 1],
                prompt_targets_N=targets[2 * k + 1],
            )
            for k in range(len(parts))
        ]

    def _score_epoch(self, epoch: int, step: int, steps: int, training: float) -> None:
        """Write a line for each job that has not failed."""
        self.model.eval()
        for k, loss in enumerate(self.losses.tolist()):
            if not math.isfinite(loss):
                self.failed.setdefault(k, f"its loss was {loss} in epoch {epoch}")
            if k not in self.failed:
                try:
                    self.write(self._score(k, epoch, step, steps, training))
                except Exception as error:
                    traceback.print_exc()
                    self.failed[k] = f"scoring: {type(error).__name__}: {error}"[:500]
            if k not in self.failed and epoch == self.how.epochs:
                self._embed(k)
        self.adapters.only = None
        free_memory()

    def _embed(self, k: int) -> None:
        """Save the embeddings of training and validation prompts, for benchmarks/ensembles.py."""
        own, job = self.sets[k], self.stack.jobs[k]
        if self.how.embeddings is None or job.variant != "ce":
            return
        try:
            self.adapters.only = k
            prompts = [*(one.prompt for one in own.train), *own.val]
            found = embed_prompts(self.model, prompts, 8192).astype(np.float16)
            path = Path(self.how.embeddings) / f"{self.prepared.data}-{job.variant}-{job.seed}.npz"
            np.savez(path, ids=np.array([prompt.item_id for prompt in prompts]), embeddings=found)
        except Exception:  # the results are written, and must not be lost for this
            traceback.print_exc()

    def _score(self, k: int, epoch: int, step: int, steps: int, training: float) -> dict[str, Any]:
        """A job's validation loss, and its prices in the order of the validation items."""
        since, own, job = time.perf_counter(), self.sets[k], self.stack.jobs[k]
        self.adapters.only = k
        fallback, batch_tokens = self.prepared.fallback, 32_768 if self.how.device == "cuda" else 2048
        tokens = (own.price_format, own.answer_tokens, own.price_tokens, self.prepared.residual_mass)
        decoder = TreeDecoder(self.model, self.tokenizer, *tokens)
        greedy, median = [fallback] * len(own.val), [fallback] * len(own.val)
        silent = 0
        for batch in make_batches([len(prompt.ids) for prompt in own.val], batch_tokens):
            predictions = decoder.predict([own.val[index] for index in batch])
            for index, prediction in zip(batch, predictions, strict=True):
                prices = [prediction.estimate(name) for name in ("greedy", "median")]
                silent += prices[1] is None
                greedy[index], median[index] = (fallback if price is None else price for price in prices)
        loss, count = total_loss(self.model, own.val_examples, batch_tokens)
        return {
            "data": self.prepared.data,
            "variant": job.variant,
            "seed": job.seed,
            "epoch": epoch,
            "epochs": self.how.epochs,
            "step": step,
            "steps": steps,
            "train_loss": float(self.losses[k]) / self.steps_per_epoch,
            "val_loss": loss / count,
            "greedy": greedy,
            "median": median,
            "no_price": silent,
            "stack": self.stack.name,
            # Of the whole stack, on what may be shared with other processes.
            "train_s": round(training, 2),
            "score_s": round(time.perf_counter() - since, 2),
            "whole_s": round(time.time() - self.began, 2),
        }
