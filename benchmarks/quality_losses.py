"""The losses that benchmarks/quality.py compares, on the logits of one job's batch.

The losses of a whole price (CRPS, squared error of the mean) need the probability of every price, but teacher forcing
gives the digits' probabilities only along the right price. So within all prices that begin with a wrong prefix, the
probability is taken as equal for each: P(v) = P(prefix) p(wrong digit | prefix) / (number of prices with these first
digits). With that, both are exact, and the gradient reaches each digit's probabilities, weighted by what they cost.

Shape suffixes: I items, N scored tokens, D digits' values at one place, V vocabulary, P places and the end of text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import cross_entropy


@dataclass(frozen=True, slots=True)
class Answers:
    """The logits of one job's batch, or of a part of it. `count` and `items` are the scored tokens and the items of the
    whole batch. `digits` are the token ids of each place of a padded price; None if prices are not padded. `median` is
    the median training price in steps, the scale of errors. The prompts' logits are there only for a prompt loss.
    """

    logits_NV: torch.Tensor
    targets_N: torch.Tensor
    count: int
    items: int
    digits: Sequence[torch.Tensor] | None
    median: float
    prompt_logits_NV: torch.Tensor | None = None
    prompt_targets_N: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """The digits' probabilities along the right prices: for each place `p_ID` (renormalised over digits), the right
    digits `y_I`, and the number of prices below one value of the digit, `width`.
    """

    p_ID: tuple[torch.Tensor, ...]
    y_I: tuple[torch.Tensor, ...]
    width: tuple[int, ...]


def token_loss(answers: Answers) -> torch.Tensor:
    """Cross-entropy per token, the end of text included."""
    return cross_entropy(answers.logits_NV, answers.targets_N, reduction="sum") / answers.count


def prompt_loss(answers: Answers, weight: float) -> torch.Tensor:
    """Cross-entropy, where each token of the prompt counts `weight` of a token of the completion."""
    assert answers.prompt_logits_NV is not None
    assert answers.prompt_targets_N is not None
    prompt = cross_entropy(answers.prompt_logits_NV, answers.prompt_targets_N, reduction="sum")
    return token_loss(answers) + weight * prompt / answers.count


def split_places(answers: Answers) -> tuple[Places, torch.Tensor]:
    """The digits' probabilities, and the loss of everything else: the negative log of the share of digits at each
    place, and of the end of text. It is summed and divided like the cross-entropy.
    """
    if answers.digits is None:
        raise ValueError("this loss needs padded prices with one token per digit")
    places = len(answers.digits)
    logits_IPV = answers.logits_NV.view(-1, places + 1, answers.logits_NV.shape[-1])
    targets_IP = answers.targets_N.view(-1, places + 1)
    rest = cross_entropy(logits_IPV[:, -1], targets_IP[:, -1], reduction="sum")
    p_ID, y_I, width = [], [], []
    for place, ids_D in enumerate(answers.digits):
        logits_ID = logits_IPV[:, place][:, ids_D]
        rest = rest + (logits_IPV[:, place].logsumexp(-1) - logits_ID.logsumexp(-1)).sum()
        p_ID.append(logits_ID.softmax(-1))
        is_right_ID = targets_IP[:, place, None] == ids_D
        y_I.append(is_right_ID.int().argmax(-1))
    for place in range(places):
        after = 1
        for ids_D in answers.digits[place + 1 :]:
            after *= len(ids_D)
        width.append(after)
    return Places(tuple(p_ID), tuple(y_I), tuple(width)), rest / answers.count


def digit_distance(places: Places) -> torch.Tensor:
    """Wasserstein distance between each place's digits and the right digit, in digits: Σ_c p(c) |c − y|. (I, places)"""
    return torch.stack(
        [
            (p_ID * (torch.arange(p_ID.shape[1], device=p_ID.device) - y_I[:, None]).abs()).sum(-1)
            for p_ID, y_I in zip(places.p_ID, places.y_I, strict=True)
        ],
        dim=1,
    )


def crps(places: Places) -> torch.Tensor:
    """Σ_v (F(v) − 1[v ≥ y])² over all prices v, in steps. (I,)

    It is E|X − y| − E|X − X'| / 2: the absolute error of a drawn price, with a reward for spread.
    """
    total_I = below_I = torch.zeros_like(places.p_ID[0][:, 0])
    prefix_I = torch.ones_like(total_I)
    for p_ID, y_I, width in zip(places.p_ID, places.y_I, places.width, strict=True):
        mass_ID = prefix_I[:, None] * p_ID
        after_ID = below_I[:, None] + mass_ID.cumsum(-1)
        before_ID = after_ID - mass_ID
        digit_D = torch.arange(p_ID.shape[1], device=p_ID.device)
        is_below_ID = digit_D < y_I[:, None]
        # F at the m-th of the `width` prices is before + m / width · mass. Above the right price, 1 − F counts.
        start_ID = torch.where(is_below_ID, before_ID, 1 - before_ID)
        slope_ID = torch.where(is_below_ID, mass_ID, -mass_ID)
        square_ID = (
            width * start_ID**2
            + (width + 1) * start_ID * slope_ID
            + (width + 1) * (2 * width + 1) / (6 * width) * slope_ID**2
        )
        if width > 1:  # the next places divide the right digit's prices
            square_ID = square_ID.masked_fill(digit_D == y_I[:, None], 0.0)
        total_I = total_I + square_ID.sum(-1)
        below_I = before_ID.gather(1, y_I[:, None])[:, 0]
        prefix_I = mass_ID.gather(1, y_I[:, None])[:, 0]
    return total_I


def mean_error(places: Places) -> torch.Tensor:
    """E[v] − y, in steps. (I,)"""
    error_I = torch.zeros_like(places.p_ID[0][:, 0])
    prefix_I = torch.ones_like(error_I)
    # What the right prefix's prices are below the right price: y minus the value of its first digits.
    rest_I = torch.stack([y_I * width for y_I, width in zip(places.y_I, places.width, strict=True)]).sum(0)
    for p_ID, y_I, width in zip(places.p_ID, places.y_I, places.width, strict=True):
        mass_ID = prefix_I[:, None] * p_ID
        digit_D = torch.arange(p_ID.shape[1], device=p_ID.device)
        off_ID = digit_D * width + (width - 1) / 2 - rest_I[:, None]
        if width > 1:
            off_ID = off_ID.masked_fill(digit_D == y_I[:, None], 0.0)
        error_I = error_I + (mass_ID * off_ID).sum(-1)
        prefix_I = mass_ID.gather(1, y_I[:, None])[:, 0]
        rest_I = rest_I - y_I * width
    return error_I


def distance_loss(answers: Answers, weight: float) -> torch.Tensor:
    """Cross-entropy and `weight` times the mean digit distance."""
    places, _ = split_places(answers)
    return token_loss(answers) + weight * digit_distance(places).mean(1).sum() / answers.items


def price_loss(answers: Answers, *, squared: bool, with_tokens: bool) -> torch.Tensor:
    """The mean CRPS, in medians, or the mean squared error of E[v], in squared medians; in addition to the
    cross-entropy, or to what `split_places` leaves of it.
    """
    places, rest = split_places(answers)
    error_I = (mean_error(places) / answers.median) ** 2 if squared else crps(places) / answers.median
    return (token_loss(answers) if with_tokens else rest) + error_I.sum() / answers.items


LOSSES: dict[str, Callable[[Answers], torch.Tensor]] = {
    "ce": token_loss,
    "ntl03": partial(distance_loss, weight=0.3),
    "crps": partial(price_loss, squared=False, with_tokens=False),
    "ce+crps": partial(price_loss, squared=False, with_tokens=True),
    "raft": partial(price_loss, squared=True, with_tokens=False),
    "ce+raft": partial(price_loss, squared=True, with_tokens=True),
    "prompt0.01": partial(prompt_loss, weight=0.01),
    "prompt0.1": partial(prompt_loss, weight=0.1),
    "prompt0.5": partial(prompt_loss, weight=0.5),
}
