"""How much of a GPU's memory a training step takes, estimated from the shape of the model.

The estimate is the sum of all tensors that exist at the peak: tensors that autograd keeps for the backward pass, and
temporary tensors of one operation or layer. The list of tensors comes from the sources of transformers 5.23
(models/llama), peft 0.21, bitsandbytes 0.50 and torch's SDPA. tests/core/test_memory.py compares the estimate with
peaks measured on an H200. Compiled layers keep less.

Numbers of tokens include padding. b is the size of a number in the compute dtype in bytes, h the hidden size, i the
width of the MLP.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

# The share of a GPU's memory that the estimate may fill. The rest is for gaps between tensors: on an H200, torch's
# allocator reserved 9 to 15 % more memory than it allocated.
USABLE = 0.92

# The share of a GPU's free memory that dequantized 4-bit weights may take.
_DENSE = 0.25

# The CUDA context with its kernels, and cuBLAS's workspace: 0.8 to 1.1 GB on an H200.
CONTEXT_BYTES = 1_000_000_000

# Positions with logits per item. In Llama 3, 1234.00 has the tokens 123, 4, a point and 00, then the end of text.
COMPLETION_TOKENS = 5

# The linear layers of a decoder layer, and groups of them that share their input.
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SHARING = (frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}))


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What decides the memory of a training: a decoder like Llama (attention, then a gated MLP) with LoRA on it.

    `base_bytes` is the size of all frozen weights. `packed_bytes` is the size of the 4-bit weights, and `dense_bytes`
    the size of the same weights in the compute dtype. `dequantized_bytes` is the size of the largest weight that a
    4-bit product unpacks. `query` and `key_value` are the total widths of the heads. `adapted` are the layers of
    `LINEAR_LAYERS` that have an adapter. The adapter has `adapter_parameters` weights in float32. `compute_bytes` is 2
    for bfloat16 and float16. `needs_mask`: attention is computed with a mask.
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

    Without a mask, transformers calls attention with fewer key heads than query heads. torch has no fused kernel for
    this on older GPUs and in float32.
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

    `adapter` is for the float32 weights and their copies in the compute dtype. `optimizer` is for AdamW's two moments.
    `activations` is for tensors that autograd keeps, `transients` for temporary tensors of one operation.
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
        """Everything except the context. torch counts this as allocated, unless the optimizer is paged."""
        return self.base + self.adapter + self.gradients + self.optimizer + self.activations + self.transients

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.tensors + self.context

    def fits(self, gpu_bytes: int) -> bool:
        """Whether it fits into the usable share of a GPU's memory."""
        return self.total <= USABLE * gpu_bytes


def training_memory(
    shape: TrainingShape, micro_batch: int, tokens: int, *, checkpointing: bool, accumulates: bool
) -> TrainingMemory:
    """The peak of a step over `micro_batch` items with `tokens` tokens each, in one forward pass.

    `accumulates`: the step has several forward passes, so gradients exist when the second pass begins.
    """
    moments = _moments(shape, micro_batch * tokens, tokens, checkpointing=checkpointing, accumulates=accumulates)
    return max(moments, key=lambda memory: memory.total)


def largest_micro_batch(
    shape: TrainingShape, gpu_bytes: int, batch_size: int, tokens: int, *, checkpointing: bool
) -> int | None:
    """The largest divisor of `batch_size` whose forward and backward pass fits on a GPU; None if not even one item
    fits.
    """
    for micro_batch in (n for n in range(batch_size, 0, -1) if batch_size % n == 0):
        accumulates = micro_batch < batch_size
        memory = training_memory(shape, micro_batch, tokens, checkpointing=checkpointing, accumulates=accumulates)
        if memory.fits(gpu_bytes):
            return micro_batch
    return None


def largest_length(
    shape: TrainingShape, gpu_bytes: int, micro_batch: int, most: int, *, checkpointing: bool, accumulates: bool
) -> int:
    """The largest number of tokens up to `most` at which `micro_batch` items fit on a GPU; 0 if not even one does."""

    def is_too_large(tokens: int) -> bool:
        memory = training_memory(shape, micro_batch, tokens, checkpointing=checkpointing, accumulates=accumulates)
        return not memory.fits(gpu_bytes)

    return bisect_left(range(1, most + 1), x=True, key=is_too_large)


def saved_per_token(shape: TrainingShape) -> int:
    """Bytes per token that autograd keeps for one decoder layer. Frozen linear layers keep nothing."""
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    # LlamaRMSNorm, twice per layer: the input in float32 (for the power and for the product), and one factor per token.
    norms = 2 * (4 * h + 4)
    # down(silu(gate) * up): gate for silu, silu(gate) and up for the product.
    mlp = 3 * b * i
    # SDPA: query, key, value and output, and one float32 log-sum per head for the softmax. With a mask, keys and values
    # are repeated for each query head.
    attention = 2 * b * (shape.query + (shape.query if shape.needs_mask else shape.key_value)) + 4 * shape.heads
    return norms + attention + mlp + sum(_adapter_per_token(shape, name) for name in shape.adapted)


def _adapter_per_token(shape: TrainingShape, name: str) -> int:
    """Bytes per token kept for `lora_B(lora_A(dropout(x)))`: the dropout mask, its output, and lora_A's output."""
    b = shape.compute_bytes
    width = {"o_proj": shape.query, "down_proj": shape.intermediate}.get(name, shape.hidden)
    mask = width if shape.dropout else 0
    # Without dropout, x itself is kept, once for all layers that share it. For o_proj, x is the output of SDPA.
    shared = next((group & shape.adapted for group in _SHARING if name in group), frozenset({name}))
    is_kept_elsewhere = name == "o_proj" or name != min(shared)
    kept = 0 if is_kept_elsewhere and not shape.dropout else b * width
    return mask + kept + b * shape.rank


def _moments(
    shape: TrainingShape, size: int, tokens: int, *, checkpointing: bool, accumulates: bool
) -> Iterator[TrainingMemory]:
    """The memory at each moment of a step over `size` tokens that may be the peak."""
    b, h, layers = shape.compute_bytes, shape.hidden, shape.layers
    weights = 4 * shape.adapter_parameters
    # Autocast copies each adapter weight at its first use, and keeps the copy until the forward pass ends. Autograd
    # keeps the copy until the backward pass of the layer ends.
    copy = b * shape.adapter_parameters if b < 4 else 0
    before = weights if accumulates else 0
    one_layer = saved_per_token(shape) * size
    # A checkpointed layer keeps only its input, and everything else only while it is recomputed.
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
        # The backward pass of the first layer: all others have gradients.
        yield at(layer_copy, weights, inputs + one_layer, backward)
    else:
        # The backward pass begins: everything is kept.
        yield at(copy, before, layers * one_layer, max(backward, begin))
        yield at(layer_copy, weights, one_layer, backward)
    # The optimizer's step: there are no activations.
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
    """The peak of one layer's MLP in its backward pass or directly before, not counting what autograd keeps for it."""
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    adapted = "down_proj" in shape.adapted
    # Tensors kept for down_proj's adapter are freed when the gradient reaches the adapter's input.
    freed = _adapter_per_token(shape, "down_proj") if adapted else 0
    # Backward through the product: gradients of the product, silu(gate), up, and the residual stream.
    product = 3 * b * i + b * h - freed
    # Backward through down_proj: its unpacked weight, the gradients of its output and input, and the adapter's part of
    # the input's gradient.
    unpacked = shape.dequantized_bytes + (b * h + (2 if adapted else 1) * b * i - freed) * size
    return max(_end_of_layer(shape, size), product * size, unpacked)


def _end_of_layer(shape: TrainingShape, size: int) -> int:
    """The memory of down_proj at the end of its layer: its input and output, the residual stream and the normed input,
    and with an adapter its product and scaled product.
    """
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    return (b * i + (5 if "down_proj" in shape.adapted else 3) * b * h) * size


def _forward_transients(shape: TrainingShape, size: int) -> int:
    """The peak of one layer's MLP in a forward pass that keeps nothing."""
    b, h, i = shape.compute_bytes, shape.hidden, shape.intermediate
    # silu(gate) and up, the residual stream and the normed input. In addition, if up_proj has an adapter: the adapter's
    # product and scaled product. If not: silu(gate) * up.
    computed = ((4 if "up_proj" in shape.adapted else 3) * b * i + 2 * b * h) * size
    unpacked = shape.dequantized_bytes + (2 * b * i + 2 * b * h) * size
    return max(computed, unpacked, _end_of_layer(shape, size))
