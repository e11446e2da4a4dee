"""Share out the weights of a base among processes, for bases that do not fit into one GPU (FSDP2).

Only the base's layers are shared out. They are frozen, so processes exchange weights but no gradients of them. The
adapter is whole in every process, as without sharding: its gradients are added up, and its checkpoints and training
states have the same files for any number of processes.
"""

from typing import Any

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pricer.errors import ModelError
from pricer.ml.base import layers_in_4_bits
from pricer.ml.processes import Processes


def shard(model: Any, device: str, processes: Processes) -> None:
    """Leave this process its part of the layers of a model that was loaded into main memory, and move that part and
    everything else to `device` (cpu or cuda). Each layer is put together again while it computes, so that all
    processes must compute the same number of passes.
    """
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not layers:
        raise ModelError(f"{type(model.get_base_model()).__name__} does not say which of its layers are alike")
    for layer in layers_in_4_bits(model).values():
        # A part of a weight does not know how it was quantized. bitsandbytes then asks the layer.
        layer.quant_state = layer.weight.quant_state
        layer.quant_state.to(device)
    adapter = {parameter for parameter in model.parameters() if parameter.requires_grad}
    mesh = init_device_mesh(device, (processes.count,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=adapter)
    inside = {parameter for layer in layers for parameter in layer.parameters()}
    # The embeddings and the output layer are read outside of the layers, so they stay whole. With a root, the weights
    # of the next layer arrive while one computes.
    fully_shard(decoder, mesh=mesh, ignored_params=adapter | (set(decoder.parameters()) - inside))
    for whole in adapter | (set(model.parameters()) - inside):
        whole.data = whole.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
