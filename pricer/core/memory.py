"""How much of a GPU's memory a training step takes, estimated from the shape of the model.

The estimate adds up the tensors that are alive together at the peak: what autograd keeps for the backward pass, and
what one operation or layer needs for a moment. They were read from the sources of transformers 5.23 (models/llama),
peft 0.21, bitsandbytes 0.50 and torch's SDPA, and compared with peaks measured on an H200 (tests/core/test_memory.py).
Compiled layers keep less.

Tokens include padding. b is the bytes of a number in the compute dtype, h the hidden size, i the width of the MLP.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

# The share of a GPU's memory that the estimate may fill. The rest is for gaps between tensors in torch's allocator,
# which on an H200 had reserved 9 to 15 % more than was allocated.
USABLE = 0.92

# The share of a GPU's free memory that dequantized 4-bit weights may take.
_DENSE = 0.25

# The CUDA context with its kernels, and cuBLAS's workspace: 0.8 to 1.1 GB on an H200.
CONTEXT_BYTES = 1_000_000_000

# Positions per item that have logits. Llama 3 writes 1234.00 as 123, 4, a point and 00, then the end of text.
COMPLETION_TOKENS = 5

# The linear layers of a decoder layer, and groups of them that share their input.
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SHARING = (frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}))


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What decides the memory of a training: a decoder like Llama (attention, then a gated MLP) with LoRA on it.

    `base_bytes` is the size of all frozen weights, `packed_bytes` of those in 4 bits, and `dense_bytes` what these
    would take at the compute dtype. `dequantized_bytes` is the largest weight that a 4-bit product unpacks. `query` and
    `key_value` are the total widths of the heads. `adapted` are the layers of `LINEAR_LAYERS` with an adapter, which
    has `adapter_parameters` in float32. `compute_bytes` is 2 for bfloat16 and float16. `needs_mask`: attention is
    computed with a mask.
    """

    base_bytes: int
    packed_bytes: int
    dense_bytes: int
    dequantized_bytes: int
    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    heads: int
    vocabulary: int
    adapted: frozenset[str]
    adapter_parameters: int
    rank: int
    dropout: bool
    compute_bytes: int
    needs_mask: bool = False


def has_room_for_dense(dense: int, free: int) -> bool:
    """Whether 4-bit weights are dequantized once. `dense` is their size at the compute dtype; both are in bytes."""
    return 0 < dense <= _DENSE * free


def needs_attention_mask(*, is_ampere: bool, compute_bytes: int) -> bool:
    """Whether attention on a GPU is slow without a mask. `is_ampere`: compute capability 8 or higher.

    Without a mask transformers asks for fewer heads of keys than of queries, for which torch has no fused kernel on
    older GPUs and in float32.
    """
    return not is_ampere or compute_bytes == 4


def fit_to_gpu(shape: TrainingShape, gpu_bytes: int, *, is_ampere: bool) -> TrainingShape:
    """The shape as it is trained on a GPU: with a mask if needed, and 4-bit weights dequantized if there is room."""
    needs_mask = needs_attention_mask(is_ampere=is_ampere, compute_bytes=shape.compute_bytes)
    shape = replace(shape, needs_mask=needs_mask)
    if not has_room_for_dense(shape.dense_bytes, gpu_bytes - CONTEXT_BYTES - shape.base_bytes):
        return shape
    base_bytes = shape.base_bytes - shape.packed_bytes + shape.dense_bytes
    return replace(shape, base_bytes=base_bytes, packed_bytes=0, dense_bytes=0, dequantized_bytes=0)


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes at the peak of a training step, part by part.

    `adapter` has the float32 weights and their copies in the compute dtype; `optimizer` is AdamW's two moments;
    `activations` is what autograd keeps, `transients` what one operation needs for a moment.
    """

    base: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    transients: int
    context: int

    @property
    def tensors(self) -> int:
        """Everything but the context: what torch counts as allocated, unless the optimizer is paged."""
        return self.base + self.adapter + self.gradients + self.optimizer + self.activations + self.transients

    @property
    def total(self) -> int:
        """Everything."""
        return self.tensors + self.context

    def fits(self, gpu_bytes: int) -> bool:
        """Whether it fits into the usable share of a GPU's memory."""
        return self.total <= USABLE * gpu_bytes


def training_memory(
    shape: TrainingShape, micro_batch: int, tokens: int, *, checkpointing: bool, accumulates: bool
) -> TrainingMemory:
    """The peak of a step over `micro_batch` items of `tokens` each, padding included, in one forward pass.

    `accumulates`: the step has several forward passes, so there are gradients when the second begins.
    """
    moments = _moments(shape, micro_batch * tokens, tokens, checkpointing=checkpointing, accumulates=accumulates)
    return max(moments, key=lambda memory: memory.total)


def largest_micro_batch(
    shape: TrainingShape, gpu_bytes: int, batch_size: int, tokens: int, *, checkpointing: bool
) -> int | None:
    """The largest divisor of `batch_size` whose forward and backward pass fits on a GPU; None: not even one item."""
    for micro_batch in (n for n in range(batch_size, 0, -1) if batch_size % n == 0):
        accumulates = micro_batch < batch_size
        memory = training_memory(shape, micro_batch, tokens, checkpointing=checkpointing, accumulates=accumulates)
        if memory.fits(gpu_bytes):
            return micro_batch
    return None


def saved_per_token(shape: TrainingShape) -> int:
    """Bytes per token that autograd keeps for one decoder layer. Frozen linear layers keep nothing."""
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    # LlamaRMSNorm, twice: its input in float32 (for the power and for the product) and the factor of the token.
    norms = 2 * (4 * h + 4)
    # down(silu(gate) * up): gate for silu, silu(gate) and up for the product.
    mlp = 3 * b * i
    # SDPA: query, key, value and output, and the softmax's log-sum per head in float32. With a mask, keys and values
    # are repeated for each query head.
    attention = 2 * b * (shape.query + (shape.query if shape.needs_mask else shape.key_value)) + 4 * shape.heads
    return norms + attention + mlp + sum(_adapter_per_token(shape, name) for name in shape.adapted)


def _adapter_per_token(shape: TrainingShape, name: str) -> int:
    """Bytes per token kept for `lora_B(lora_A(dropout(x)))`: the dropout mask, its output, and lora_A's output."""
    b = shape.compute_bytes
    width = {"o_proj": shape.query, "down_proj": shape.intermediate}.get(name, shape.hidden)
    mask = width if shape.dropout else 0
    # Without dropout x itself is kept, once for all layers that share it; o_proj's x is SDPA's output.
    shared = next((group & shape.adapted for group in _SHARING if name in group), frozenset({name}))
    is_kept_elsewhere = name == "o_proj" or name != min(shared)
    kept = 0 if is_kept_elsewhere and not shape.dropout else b * width
    return mask + kept + b * shape.rank


def _moments(
    shape: TrainingShape, size: int, tokens: int, *, checkpointing: bool, accumulates: bool
) -> Iterator[TrainingMemory]:
    """The memory at each moment that can be the peak of a step over `size` tokens."""
    b, h, layers = shape.compute_bytes, shape.hidden, shape.layers
    weights = 4 * shape.adapter_parameters
    # Autocast copies each adapter weight at its first use and keeps the copy until the forward pass ends; autograd
    # keeps it as long as the layer.
    copy = b * shape.adapter_parameters if b < 4 else 0
    before = weights if accumulates else 0
    one_layer = saved_per_token(shape) * size
    # For a checkpointed layer only its input is kept, and everything while it is recomputed.
    inputs = b * h * size

    def at(copies: int, gradients: int, activations: int, transients: int) -> TrainingMemory:
        adapter, optimizer = weights + copies, 2 * weights
        return TrainingMemory(shape.base_bytes, adapter, gradients, optimizer, activations, transients, CONTEXT_BYTES)

    layer_copy = copy // layers
    backward = _layer_transients(shape, size)
    # The backward pass begins: the output layer, then the norm before it.
    begin = max(_loss(shape, size, size // tokens), _final_norm(shape, size))
    if checkpointing:
        # The end of the forward pass: copies of the whole adapter, and inputs.
        yield at(copy, before, layers * inputs, max(_forward_transients(shape, size), begin))
        # The last layer is recomputed, and its backward pass begins.
        yield at(layer_copy, before, layers * inputs + one_layer, backward)
        # The first layer, when all others have their gradients.
        yield at(layer_copy, weights, inputs + one_layer, backward)
    else:
        # The backward pass begins: everything is kept.
        yield at(copy, before, layers * one_layer, max(backward, begin))
        yield at(layer_copy, weights, one_layer, backward)
    # The optimizer's step, when no activations are left.
    yield at(0, weights, 0, 0)


def _loss(shape: TrainingShape, size: int, items: int) -> int:
    """The peak of the loss, in float32: the log-softmax that cross_entropy keeps, its gradient, the gradient of the
    logits, and the last norm's input.
    """
    logits = 4 * shape.vocabulary * COMPLETION_TOKENS * items
    return 3 * logits + 4 * shape.hidden * size


def _final_norm(shape: TrainingShape, size: int) -> int:
    """The norm before the output layer: its input in float32, and in its backward pass the gradient in the compute
    dtype and five tensors in float32.
    """
    return (4 + shape.compute_bytes + 5 * 4) * shape.hidden * size


def _layer_transients(shape: TrainingShape, size: int) -> int:
    """The peak of one layer's MLP, besides what is kept for it, in its backward pass or right before."""
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    adapted = "down_proj" in shape.adapted
    # What is kept for down_proj's adapter is freed when the gradient reaches its input.
    freed = _adapter_per_token(shape, "down_proj") if adapted else 0
    # Backward through the product: gradients of the product, of silu(gate) and of up, and of the residual stream.
    product = 3 * b * i + b * h - freed
    # Backward through down_proj: its unpacked weight, the gradients of output and input, and the adapter's gradient of
    # the input, which is added.
    unpacked = shape.dequantized_bytes + (b * h + (2 if adapted else 1) * b * i - freed) * size
    return max(_end_of_layer(shape, size), product * size, unpacked)


def _end_of_layer(shape: TrainingShape, size: int) -> int:
    """What down_proj needs at the end of its layer: its input and output, the residual stream and the normed input, and
    the adapter's product and scaled product.
    """
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    return (b * i + (5 if "down_proj" in shape.adapted else 3) * b * h) * size


def _forward_transients(shape: TrainingShape, size: int) -> int:
    """The peak of one layer's MLP in a forward pass for which nothing is kept."""
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    # silu(gate) and up; with an adapter on up_proj its product and scaled product, without one silu(gate) * up; the
    # residual stream and the normed input.
    computed = ((4 if "up_proj" in shape.adapted else 3) * b * i + 2 * b * h) * size
    unpacked = shape.dequantized_bytes + (2 * b * i + 2 * b * h) * size
    return max(computed, unpacked, _end_of_layer(shape, size))
