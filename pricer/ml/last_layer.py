"""Computes the last layer of a model only where its output is used."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pricer.ml.cpu_layers import AtPositions, modules_after_keys_and_values


@contextmanager
def last_layer_where_scored(model: Any) -> Iterator[None]:
    """A context in which a model on the CPU computes its last layer only at the positions of `logits_only_at`, except
    for keys and values. Models whose layers have other names are computed in full.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    with ExitStack() as stack:
        if layers and model.device.type == "cpu":
            for module in modules_after_keys_and_values(layers[-1]):
                forward = module.forward
                if not isinstance(forward, AtPositions):  # in training, it is there already
                    stack.callback(setattr, module, "forward", forward)
                    module.forward = AtPositions(layers[-1], forward, model.get_output_embeddings().forward)
        yield
