"""What a run can be set to: one frozen RunConfig, with a line of documentation under each setting."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pricer.core.predictions import ESTIMATORS

if TYPE_CHECKING:  # a type checker knows no literals that are made from a table
    EstimatorName = str
else:
    EstimatorName = Literal[("auto", *ESTIMATORS)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def _number(value: Any) -> Any:
    """YAML reads `yes` and `on` as true, and pydantic true as 1: refuse it where a number is wanted."""
    if isinstance(value, bool):
        raise PydanticCustomError("not_a_number", "Input should be a number")
    return value


def _whole(value: Any) -> Any:
    """YAML has no exponent integers and people write 1_000 or 2e4: take a float that is whole as the int it is."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else _number(value)


def _off(value: Any) -> Any:
    """YAML reads `off` as false."""
    return "off" if value is False else value


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[Whole, Field(ge=1)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]


class ModelConfig(_Section):
    """The base model and how it is loaded."""

    base: str = "builtin:base"
    """A Hub repository (`meta-llama/Llama-3.2-3B`), a local folder, or `builtin:base`, a tiny one that comes along."""
    revision: str | None = None
    """Commit hash, tag or branch of a Hub base; the commit it stands for is pinned when training starts."""
    quantization: Literal["nf4", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat with double quantization (QLoRA). `none`: the weights at `compute_dtype`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU where there is one."""
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on a GPU that has it (compute capability 8 and up), float16 on others, float32 on the CPU."""


class DataConfig(_Section):
    """Where the items come from and how they are split."""

    source: str = "builtin:computers"
    """A .csv, .jsonl or .parquet file, a Hub data set (`user/name`), or `builtin:computers`."""
    revision: str | None = None
    """Commit hash, tag or branch of a Hub data set. Pin it: data that moves makes evaluations incomparable."""
    description: str = "description"
    """Column with the product's description."""
    price: str = "price"
    """Column with its price in dollars: a number above zero."""
    title: str | None = None
    """Column with a title, put above the description; null: none."""
    category: str | None = None
    """Column with a category; null: none."""
    max_price: Annotated[Number, Field(gt=0)] | None = None
    """Leave out items dearer than this, in dollars, from every split; their number is said. null: none."""
    unwrap: bool = False
    """The description column holds a whole notebook prompt (question, blank line, description, blank line,
    `Price is $…`): take the description out of it and leave the rest, with the price, behind."""
    val_fraction: Fraction = 0.1
    """Share of items that choose the checkpoint. An item's split is a hash of its words: it never changes."""
    test_fraction: Fraction = 0.1
    """Share of items kept for the number to publish."""
    train_limit: Count | None = None
    """Use at most this many training items, a random sample that stays; null: all."""
    val_limit: Count | None = None
    """Use at most this many validation items; null: all."""
    test_limit: Count | None = None
    """Use at most this many test items; null: all."""

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "DataConfig":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction together leave nothing to train on")
        return self


class PromptConfig(_Section):
    """The question and the form of the answer."""

    question: str = "What does this cost to the nearest dollar?"
    """First line of every prompt."""
    lead: str = "Price is $"
    """Last line of every prompt; the completion goes on from it."""
    price_format: Literal["auto", "plain", "padded"] = "auto"
    """`plain` is 227.00, `padded` 0227. `auto`: padded where the tokenizer splits digits, and where plain prices have
    more than 5 digits and padded ones can be read exactly; plain elsewhere."""
    price_width: Count | None = None
    """Digits of a padded price; null: as many as the dearest training item needs."""
    max_length: Annotated[Whole, Field(ge=8)] = 128
    """Most tokens of prompt and completion together; a longer description is cut, never the completion."""


class AdapterConfig(_Section):
    """The LoRA adapter, the only weights that are trained."""

    r: Count = 32
    """Rank of the update."""
    alpha: Count = 64
    """The update is scaled by alpha / r."""
    dropout: Fraction = 0.1
    """Dropout on the adapter's input while training."""
    target_modules: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get one, for instance [q_proj, k_proj, v_proj, o_proj]."""


class TrainConfig(_Section):
    """Supervised fine-tuning."""

    epochs: Annotated[Number, Field(gt=0)] = 3
    """Passes over the training items. Take too many: `pricer pick` finds the best checkpoint."""
    batch_size: Count = 16
    """Items per optimizer step."""
    micro_batch: Count | Literal["auto"] = "auto"
    """Items per forward and backward pass; a step adds up as many passes as its batch takes. `auto`: on a GPU as many
    as a trial on the longest items found room for, elsewhere the whole batch. The same weights but for rounding."""
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-4
    """Peak, after warm-up. TRL's default is 2e-5; LoRA wants more."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after warm-up. TRL's default is linear."""
    warmup: Fraction = 0.03
    """Share of all steps in which the learning rate climbs to its peak. TRL's default is 0."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.001
    """AdamW's decoupled weight decay. TRL's default is 0."""
    max_grad_norm: Annotated[Number, Field(gt=0)] = 0.3
    """Gradients are scaled down to this norm. TRL's default is 1."""
    optimizer: Literal["auto", "adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"] = "auto"
    """`auto`: adamw_torch_fused on a GPU, adamw_torch elsewhere. paged_adamw_32bit: its state, 8 bytes for each weight
    of the adapter, moves to main memory under pressure, which takes twenty times as long. What `auto` chose stays with
    the run, on whatever device it goes on."""
    checkpoint_every: Count = 500
    """Optimizer steps between checkpoints; the last step always gets one."""
    log_every: Count = 10
    """Optimizer steps between lines in metrics.jsonl."""
    val_items: Annotated[Whole, Field(ge=0)] = 200
    """Validation items, always the same, whose loss and price error are measured at each checkpoint; 0: none."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: much less memory, a third more time. `auto`: where a batch does not
    fit into the GPU and the trial found it faster than a smaller `micro_batch`. TRL's default is true."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the model's layers (torch.compile) on a GPU: a minute or two at the start, then faster steps. `auto`: for
    a training of more than half an hour, if the trial found it faster."""
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 42
    """Seeds adapter initialisation, dropout and the order of items."""

    def steps_per_epoch(self, items: int) -> int:
        """Optimizer steps in a pass over so many training items."""
        return math.ceil(items / self.batch_size)

    def steps(self, items: int) -> int:
        """Optimizer steps of the whole training on so many items."""
        return math.ceil(self.epochs * self.steps_per_epoch(items))


class EvalConfig(_Section):
    """Scoring."""

    batch_tokens: Count | Literal["auto"] = "auto"
    """Maximum number of tokens, padding included, in one batch of prompts. `auto`: found by a short trial on this
    device. An evaluation that has begun keeps the number it began with."""
    estimator: EstimatorName = "auto"
    """What is scored of the model's distribution over prices. `auto`: the median, which has the lowest expected error
    (greedy where the tokenizer's way of writing numbers cannot be read, which is said)."""
    unexplored: Annotated[Number, Field(gt=0, lt=1)] = 0.02
    """Share of a distribution that may be left out of account where prices are several tokens without numeric order;
    elsewhere median and intervals are exact."""
    race_budget: Annotated[Number, Field(gt=0, le=1)] = 0.3
    """With `--race`: the share of scoring everything that it takes to drop all checkpoints but one. The winner is then
    scored on the rest of the items, too."""


class HubConfig(_Section):
    """Checkpoints on the Hugging Face Hub."""

    repo: Annotated[str, Field(pattern=r"^(auto|[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)$")] | None = None
    """Repository for the checkpoints (`user/name`), made if need be. `auto`: `<user>/<tracking.project>-<run>`; null:
    none, they stay in the run's folder."""
    private: bool = True
    """Whether a new repository is private."""
    state: Literal["latest", "all", "none"] = "latest"
    """Training state on the branch `state`, from which another machine can go on: of the newest checkpoint alone, of
    `all`, or `none`."""


class TrackingConfig(_Section):
    """Curves on Weights & Biases."""

    mode: Annotated[Literal["auto", "online", "offline", "off"], BeforeValidator(_off)] = "off"
    """`auto`: online where you are logged in (`wandb login`, WANDB_API_KEY), offline elsewhere. `offline`: kept in the
    run's folder for `wandb sync`. `pricer eval` and `pricer pick` add to the same run: errors by step and, of the best
    checkpoint, a table of at most 500 validation items, with the first 200 characters of each description."""
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = "pricer"
    """Project the run belongs to, there and in the name of a repository that `hub.repo: auto` makes."""


class RunConfig(_Section):
    """Everything that decides what a run does."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    prompt: PromptConfig = PromptConfig()
    adapter: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    hub: HubConfig = HubConfig()
    tracking: TrackingConfig = TrackingConfig()
