"""Several LoRA adapters on one base, trained side by side: a row of the batch belongs to one of them.

On a small base, a GPU spends most of a step with starting kernels. With K adapters in one step it starts as many, each
with K times the work. The weights, gradients and AdamW states of all adapters are four matrices of one row each, so a
step of the optimizer is a few kernels, and gradients are clipped per adapter.

Shape suffixes: K adapters, P parameters of one, R rank, I inputs, O outputs, N rows and columns of one adapter's batch.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from quality_variants import Variant
from torch.nn.functional import dropout

from pricer.core.memory import LINEAR_LAYERS
from pricer.ml.cpu_layers import draw_mask

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
ATTENTION = LINEAR_LAYERS[:4]


class AdapterStack:
    """The adapters on a base, which it changes. `only` is the adapter that computes all rows, for scoring; None: in
    training, each adapter computes its share of the rows, in order.
    """

    def __init__(self, model: Any, variants: Sequence[Variant], seeds: Sequence[int]) -> None:
        # Autograd adds to parts of a matrix, which is not the layout that it would choose.
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        self.only: int | None = None
        self.model = model
        rates = {variant.dropout for variant in variants if variant.dropout}
        assert len(rates) <= 1, "one rate of dropout for all that have it"
        without = [not variant.dropout for variant in variants]
        assert without == sorted(without, reverse=True), "those without dropout come first"
        self.dropout, self.first_dropped = max(rates, default=0.0), sum(without)
        self.scales = [variant.scale for variant in variants]
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.split(".")[-1] in LINEAR_LAYERS
        }
        assert all(layer.bias is None for layer in layers.values())
        model.requires_grad_(False)
        rank, count, device = max(variant.r for variant in variants), len(variants), model.device
        shapes = [(layer.in_features, layer.out_features) for layer in layers.values()]
        parts: list[list[tuple[int, ...]]] = [
            [(rank, inputs) for inputs, _ in shapes],
            [(outputs, rank) for _, outputs in shapes],
            [(outputs,) for _, outputs in shapes] if any(variant.dora for variant in variants) else [],
        ]
        sizes = [sum(math.prod(shape) for shape in part) for part in parts]
        self.weights_KP = torch.zeros((count, sum(sizes)), device=device)
        self.gradients_KP = torch.zeros_like(self.weights_KP)
        self._first_KP, self._second_KP = torch.zeros_like(self.weights_KP), torch.zeros_like(self.weights_KP)
        self._steps = 0
        # A, B and magnitudes: their places, and what multiplies the learning rate.
        bounds = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
        rates_K1 = torch.tensor([[variant.b_rate] for variant in variants], device=device)
        self._rates = [
            (slice(bounds[0], bounds[1]), torch.ones_like(rates_K1)),
            (slice(bounds[1], bounds[2]), rates_K1),
            (slice(bounds[2], bounds[3]), torch.ones_like(rates_K1)),
        ]
        views = [self._cut(start, part) for start, part in zip(bounds, parts, strict=False)]
        for index, (name, layer) in enumerate(layers.items()):
            a_KRI = views[0][index]
            for k, (variant, seed) in enumerate(zip(variants, seeds, strict=True)):
                if not variant.attention_only or name.split(".")[-1] in ATTENTION:
                    # As peft: uniform, and independent of the rank. An A of zeros, like its B, never changes.
                    random = torch.Generator().manual_seed(seed * 10_007 + index)
                    values = torch.rand((rank, layer.in_features), generator=random) * 2 - 1
                    a_KRI.data[k, : variant.r] = (values[: variant.r] / math.sqrt(layer.in_features)).to(device)
            magnitude_KO = views[2][index] if parts[2] else None
            model.set_submodule(name, _StackedLayer(self, layer, a_KRI, views[1][index], magnitude_KO))

    def _cut(self, start: int, shapes: Sequence[tuple[int, ...]]) -> list[torch.nn.Parameter]:
        """Parameters from `start` on, whose weights and gradients are parts of the matrices."""
        found = []
        for shape in shapes:
            end = start + math.prod(shape)
            parameter = torch.nn.Parameter(self.weights_KP[:, start:end].view(-1, *shape))
            parameter.grad = self.gradients_KP[:, start:end].view(-1, *shape)
            found.append(parameter)
            start = end
        return found

    @torch.no_grad()
    def step(self, rate: float, decay: float, max_norm: float) -> None:
        """A step of AdamW with each adapter's gradient clipped. The gradients are zero afterwards."""
        gradients_KP, self._steps = self.gradients_KP, self._steps + 1
        norm_K1 = torch.linalg.vector_norm(gradients_KP, dim=1, keepdim=True)
        gradients_KP.mul_((max_norm / (norm_K1 + 1e-6)).clamp(max=1.0))
        self._first_KP.lerp_(gradients_KP, 1 - BETA1)
        self._second_KP.mul_(BETA2).addcmul_(gradients_KP, gradients_KP, value=1 - BETA2)
        correction = math.sqrt(1 - BETA2**self._steps)
        update_KP = self._second_KP.sqrt().div_(correction).add_(EPSILON)
        torch.div(self._first_KP, update_KP, out=update_KP).div_(1 - BETA1**self._steps)
        for part, rates_K1 in self._rates:
            self.weights_KP[:, part].mul_(1 - rate * decay * rates_K1).sub_(update_KP[:, part] * (rate * rates_K1))
        gradients_KP.zero_()


def _drop(x: torch.Tensor, share: float) -> torch.Tensor:
    """Dropout, with a cheap mask on the CPU."""
    if x.device.type != "cpu":
        return dropout(x, share)
    return x * (draw_mask(x.shape, share) / (1 - share)).to(x.dtype)


class _StackedLayer(torch.nn.Module):
    """A linear layer with the adapters of a stack."""

    def __init__(self, stack: AdapterStack, base: Any, a_KRI: Any, b_KOR: Any, magnitude_KO: Any) -> None:
        super().__init__()
        self._stack = stack
        self.base, self.a_KRI, self.b_KOR, self.magnitude_KO = base, a_KRI, b_KOR, magnitude_KO
        if magnitude_KO is not None:
            assert base.weight.dtype.is_floating_point, "DoRA on a base in 4 bits is not built here"
            magnitude_KO.data.copy_(base.weight.float().norm(dim=1))
        self._scale_K11 = torch.tensor(stack.scales, device=a_KRI.device)[:, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The base's output, and the update of the row's adapter."""
        output, only = self.base(x), self._stack.only
        chosen = slice(None) if only is None else slice(only, only + 1)
        a_KRI, b_KOR, scale_K11 = self.a_KRI[chosen], self.b_KOR[chosen], self._scale_K11[chosen]
        x_KNI = x.reshape(len(a_KRI), -1, x.shape[-1])
        if self.training and self._stack.dropout and only is None:
            first = self._stack.first_dropped
            parts = [x_KNI[:first], _drop(x_KNI[first:], self._stack.dropout)]
            pairs = zip(parts, (a_KRI[:first], a_KRI[first:]), strict=True)
            hidden_KNR = torch.cat([part @ a.transpose(1, 2) for part, a in pairs if len(a)])
        else:
            hidden_KNR = x_KNI @ a_KRI.transpose(1, 2)
        hidden_KNR = hidden_KNR * scale_K11.to(hidden_KNR.dtype)
        update = (hidden_KNR @ b_KOR.transpose(1, 2)).view(output.shape)
        if self.magnitude_KO is None:
            adapted: torch.Tensor = output + update
            return adapted
        factor_KO = self.magnitude_KO[chosen] / self._norms(a_KRI, b_KOR, scale_K11)
        shape = (len(factor_KO), -1, output.shape[-1])
        scaled: torch.Tensor = ((output + update).view(shape) * factor_KO[:, None].to(output.dtype)).view(output.shape)
        return scaled

    @torch.no_grad()
    def _norms(self, a_KRI: torch.Tensor, b_KOR: torch.Tensor, scale_K11: torch.Tensor) -> torch.Tensor:
        """The norm of each row of W + scale · B A, a constant for the gradient (DoRA, section 4.3). (K, O)"""
        with torch.autocast(a_KRI.device.type, enabled=False):
            weight_OI, scale_K1 = self.base.weight.float(), scale_K11[:, :, 0]
            cross_KO = ((weight_OI @ a_KRI.transpose(1, 2)) * b_KOR).sum(-1)
            square_KO = ((b_KOR @ (a_KRI @ a_KRI.transpose(1, 2))) * b_KOR).sum(-1)
            whole_KO = weight_OI.square().sum(1) + 2 * scale_K1 * cross_KO + scale_K1**2 * square_KO
            norms_KO: torch.Tensor = whole_KO.clamp(min=1e-12).sqrt()
            return norms_KO
