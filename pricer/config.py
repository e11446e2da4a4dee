"""The settings of a run: one frozen RunConfig, with its documentation under each setting."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pricer.config_values import (
    Count,
    CountOrAuto,
    EstimatorName,
    Fraction,
    LengthOrAuto,
    Name,
    Number,
    NumberOrAuto,
    Whole,
    read_off,
)
from pricer.core.units import MAX_DECIMALS, PriceUnit, check_symbol


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ModelConfig(_Section):
    """The base model and how it is loaded."""

    base: str = "builtin:base"
    """A Hub repository (`meta-llama/Llama-3.2-3B`), a local folder, or `builtin:base`, the tiny bundled model."""
    revision: str | None = None
    """Commit hash, tag or branch of a Hub base. Training resolves it to a commit and keeps that commit."""
    quantization: Literal["nf4", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat with double quantization (QLoRA). `none`: weights in `compute_dtype`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU if there is one, else the CPU."""
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on GPUs of compute capability 8 and higher, float16 on other GPUs. On a CPU bfloat16 if it has
    AMX, otherwise float32.
    """


class DataConfig(_Section):
    """The items, how they are cleaned, and their split."""

    source: str = "builtin:computers"
    """A file (.csv, .tsv, .jsonl, .json or .parquet; text files also with .gz or .zst), a folder of such files, a
    pattern (`items/*.csv`), a Hub data set (`user/name`), or `builtin:computers`. Files and folders named train, val
    (or validation) and test, and the splits of a Hub data set, keep their split."""
    val_source: str | None = None
    """Files with the validation items. null: they are in `source`, or are cut from its training items."""
    test_source: str | None = None
    """Files with the test items. null: they are in `source`, or are cut from its training items."""
    revision: str | None = None
    """Commit hash, tag or branch of a Hub data set. Training resolves it to a commit and keeps that commit."""
    subset: str | None = None
    """Configuration (subset) of a Hub data set that has several."""
    encoding: str = "utf-8"
    """Encoding of text files, for example utf-16 or windows-1252."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Character between the cells of a .csv file. null: found from the header."""
    layout: Literal["auto", "columns", "prompts", "messages"] = "auto"
    """`columns`: a description and a price. `prompts`: whole prompts (question, blank line, description, blank line,
    lead), with the price in the column `price` or `completion`. `messages`: chats, with the price as the last answer.
    `auto`: found from the columns and the first rows."""
    description: Name | Annotated[list[Name], Field(min_length=1)] = "description"
    """Column with the description of the product. A list of columns, such as [brand, year, mileage], makes one
    description of their names and values: `brand: Audi, year: 2017`. Empty cells are left out."""
    price: str = "price"
    """Column with the price. Every price is a number above zero."""
    unit: Annotated[str, AfterValidator(check_symbol)] = "$"
    """Unit of the prices: `$`, `€`, `kWh` and so on. Only currency signs are written before the number."""
    decimals: Annotated[Whole, Field(ge=-MAX_DECIMALS, le=MAX_DECIMALS)] | Literal["auto"] = "auto"
    """Decimals of the prices that the model writes: 2 rounds them to 0.01, -3 to 1,000. `auto`: 0 for most data, more
    if prices are below about 10, fewer if their median is above 100,000."""
    title: str | None = None
    """Column with a title, which the prompt shows above the description. null: there is none."""
    category: str | None = None
    """Column with a category. It breaks down the error and corrects intervals. null: there is none."""
    split_column: str | None = None
    """Column that says train, val (or validation) or test. null: there is none."""
    time_column: str | None = None
    """Column with a date or a number that grows with time: the newest items become the test split, those before them
    the validation split. null: splits do not depend on time."""
    keep_splits: bool = True
    """Keep the splits that the source has, and cut from its training items only what is missing. false: join all items
    and split them anew."""
    trained_splits: list[Literal["train", "val", "test"]] | Literal["unknown"] | None = None
    """Splits of the source that the adapters of another trainer (`--repo`) were trained on, such as [train]; [] if they
    were trained on other data. Items of these splits are never held out. A missing val or test split is cut from the
    other splits. `unknown`: train is assumed if the source has another split, too. null: the splits that the
    repository's card and configs name."""
    decimal_mark: Literal[".", ","] = "."
    """Decimal mark of prices that are text: `.` reads 1,299.00, `,` reads 1.299,00."""
    min_price: Annotated[Number, Field(gt=0)] | None = None
    """Minimum price. Cheaper items are left out of every split, and counted. null: no minimum above zero."""
    max_price: Annotated[Number, Field(gt=0)] | None = None
    """Maximum price. More expensive items are left out of every split, and counted. null: no maximum."""
    min_characters: Count = 1
    """Minimum length of title and description together. Items with shorter texts are left out, and counted."""
    max_characters: Count | None = None
    """Maximum length of title and description together. Items with longer texts are left out, and counted. null: no
    maximum."""
    strip_markup: bool = True
    """Remove control characters and HTML tags from texts, and replace HTML entities such as &amp;."""
    duplicates: Literal["drop", "keep"] = "drop"
    """What happens to an item with the text and the price of an earlier one of the same split of the source."""
    near_duplicates: Literal["together", "ignore"] = "together"
    """`together`: texts that are nearly the same are put into the same split. `ignore`: only texts with the same words
    are."""
    near_duplicate_similarity: Annotated[Number, Field(ge=0.5, le=1)] = 0.8
    """Minimum Jaccard similarity of two texts' five-word sequences for them to be near-duplicates."""
    price_in_description: Literal["report", "drop"] = "report"
    """What happens to items whose description contains their own price."""
    max_per_category: Count | None = None
    """Maximum number of items of each category: a random sample, always the same. Validation and test items of the
    source's own splits are all kept. null: all."""
    max_per_price_band: Count | None = None
    """Maximum number of items between 1 and 2, 2 and 5, 5 and 10, 10 and 20 and so on. null: all."""
    on_bad_row: Literal["reject", "error"] = "reject"
    """`reject`: a row that cannot be used is left out, counted, and listed in rejected.jsonl. `error`: it stops the
    command."""
    max_rejected: Annotated[Number, Field(ge=0, le=1)] = 0.05
    """Maximum share of rows that may be rejected. More is an error."""
    val_fraction: Fraction | Literal["auto"] = "auto"
    """Share of the items that are used to choose the checkpoint. A hash of its words decides an item's split. `auto`:
    10 %, but at least 100 items if a fifth of all items are that many, and at most about 2,000."""
    test_fraction: Fraction | Literal["auto"] = "auto"
    """Share of the items that are kept for the number to publish. `auto`: 10 %, but at least 100 items if a fifth of
    all items are that many, and at most about 10,000."""
    train_limit: Count | None = None
    """Maximum number of training items: a random sample, always the same. null: all."""
    val_limit: Count | None = None
    """Maximum number of validation items. null: all."""
    test_limit: Count | None = None
    """Maximum number of test items. null: all."""

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "DataConfig":
        if sum(share for share in (self.val_fraction, self.test_fraction) if share != "auto") >= 1:
            raise ValueError("val_fraction and test_fraction together leave nothing to train on")
        if self.trained_splits and not self.keep_splits:
            raise ValueError("trained_splits needs keep_splits: true, because joined splits cannot be told apart")
        return self

    @property
    def price_unit(self) -> PriceUnit:
        """The unit of prices. `decimals: auto`, which the config of a run no longer has, counts as 0."""
        return PriceUnit(self.unit, 0 if self.decimals == "auto" else self.decimals)


class PromptConfig(_Section):
    """The question, and the form of the answer."""

    question: str = "auto"
    """First line of every prompt. `auto`: the question of ready-made prompts, or one that fits `data.unit` and
    `data.decimals`, such as `What does this cost to the nearest dollar?`."""
    lead: str = "auto"
    """Last line of every prompt. The completion continues it. `auto`: like the question, for example `Price is $`."""
    price_format: Literal["auto", "plain", "padded"] = "auto"
    """`plain` writes 227.00, `padded` 0227, without a decimal point. `auto`: padded if the tokenizer splits digits, or
    if plain prices have more than 5 digits and padded prices have an exact median; otherwise plain."""
    price_width: Count | None = None
    """Number of digits of a padded price. null: as many as the most expensive training item needs."""
    max_length: LengthOrAuto = "auto"
    """Maximum number of tokens in prompt plus completion. Longer descriptions are cut; completions are not. `auto`: so
    that at most 1 % of the descriptions are cut, within the base's context and the memory of the GPU."""


class AdapterConfig(_Section):
    """The LoRA adapter. Only its weights are trained."""

    r: Count = 32
    """Rank of the update."""
    alpha: Count = 64
    """The update is scaled by alpha / r."""
    dropout: Fraction = 0.1
    """Dropout on the input of the adapter during training."""
    target_modules: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers to adapt, for example [q_proj, k_proj, v_proj, o_proj]."""


class TrainConfig(_Section):
    """Supervised fine-tuning."""

    epochs: NumberOrAuto = "auto"
    """Passes over the training items. Choose too many: `pricer pick` finds the best checkpoint. `auto`: 3 for 100,000
    training items and more, up to 13 for fewer."""
    batch_size: CountOrAuto = "auto"
    """Items per optimizer step. `auto`: 8 to 256, with the square root of the number of training items."""
    micro_batch: Count | Literal["auto"] = "auto"
    """Items per forward and backward pass; gradients are summed over the passes of a step. `auto`: on a GPU, the number
    that a trial on the longest items finds room for; on the CPU, as many as have 4,096 tokens at most. It changes only
    the rounding."""
    learning_rate: NumberOrAuto = "auto"
    """Peak learning rate, after the warm-up. `auto`: 1e-4 for a base of 3 billion parameters or more, up to 2e-3 for
    smaller ones. TRL's default is 2e-5; LoRA needs more."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up. TRL's default is linear."""
    warmup: Fraction = 0.03
    """Share of all steps during which the learning rate rises to its peak. TRL's default is 0."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.001
    """AdamW's decoupled weight decay. TRL's default is 0."""
    max_grad_norm: Annotated[Number, Field(gt=0)] = 0.3
    """Maximum norm of the gradient; a larger one is scaled down. TRL's default is 1."""
    optimizer: Literal["auto", "adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"] = "auto"
    """`auto`: adamw_torch_fused. paged_adamw_32bit moves its state, 8 bytes for each weight of the adapter, to main
    memory when the GPU is full, and is twenty times as slow. A run keeps its optimizer, whatever device it continues
    on."""
    checkpoint_every: CountOrAuto = "auto"
    """Optimizer steps between checkpoints. The last step always has one. `auto`: at least 3 checkpoints an epoch, and 8
    to 40 in all."""
    log_every: Count = 10
    """Optimizer steps between lines in metrics.jsonl."""
    val_items: Annotated[Whole, Field(ge=0)] = 200
    """Number of validation items, always the same, whose loss and price error each checkpoint reports. 0: none."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: much less memory, a third more time. `auto`: if a batch does not fit
    into the GPU, and the trial finds it faster than a smaller `micro_batch`. TRL's default is true."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the model's layers (torch.compile) on a GPU: a minute or two at the start, then faster steps. `auto`: if
    training takes more than half an hour and the trial finds compiled layers faster."""
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 42
    """Seed of the adapter's initial weights, of dropout and of the order of items."""

    def steps_per_epoch(self, items: int) -> int:
        """Optimizer steps in one pass over this number of training items. `batch_size` must be settled."""
        size: int = self.batch_size
        return math.ceil(items / size)

    def steps(self, items: int) -> int:
        """Optimizer steps of the whole training on this number of items. `epochs` must be settled."""
        epochs: float = self.epochs
        return math.ceil(epochs * self.steps_per_epoch(items))


class EvalConfig(_Section):
    """Scoring."""

    batch_tokens: Count | Literal["auto"] = "auto"
    """Maximum number of tokens, padding included, in one batch of prompts. `auto`: found by a short trial before the
    first answer. An evaluation that has begun keeps its number."""
    estimator: EstimatorName = "auto"
    """The estimate that is scored. `auto`: the median of the model's distribution over prices, which has the lowest
    expected error; greedy, with a note, if the tokenizer's way of writing numbers is not supported."""
    hit_error: Annotated[Number, Field(gt=0)] | Literal["auto"] | None = "auto"
    """An answer that is off by less than this is a hit. `auto`: 40 if `data.unit` is $ and the median training price is
    between 40 and 4,000; otherwise none. null: none."""
    hit_share: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    """An answer that is off by less than this share of the price is a hit."""
    residual_mass: Annotated[Number, Field(gt=0, lt=1)] = 0.02
    """Share of a distribution that may stay unexamined where the tokens of prices are not in numeric order. In numeric
    order median and intervals are exact."""
    race_budget: Annotated[Number, Field(gt=0, le=1)] = 0.3
    """With `--race`: the share of scoring everything that it takes to drop all checkpoints but one. The winner is then
    scored on the rest of the items, too."""
    patience: Annotated[Count | Literal["off"], BeforeValidator(read_off)] = "off"
    """Stop training early if this many checkpoints in a row are clearly worse than the best one: the 95 % interval of
    the difference in error lies above zero. Only `pricer watch` measures this, so it must run beside the training.
    `off`: train to the end."""


class HubConfig(_Section):
    """Checkpoints on the Hugging Face Hub."""

    repo: Annotated[str, Field(pattern=r"^(auto|[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)$")] | None = None
    """Repository for the checkpoints (`user/name`), created if it does not exist. `auto`:
    `<user>/<tracking.project>-<run>`. null: none; checkpoints stay in the run's folder."""
    private: bool = True
    """Whether a new repository is private."""
    state: Literal["latest", "all", "none"] = "latest"
    """Which training states go to the branch `state`, so that another machine can continue: that of the newest
    checkpoint (`latest`), of `all` checkpoints, or `none`."""


class TrackingConfig(_Section):
    """Curves on Weights & Biases."""

    mode: Annotated[Literal["auto", "online", "offline", "off"], BeforeValidator(read_off)] = "off"
    """`auto`: online if you are logged in (`wandb login`, WANDB_API_KEY), otherwise offline. `offline`: kept in the
    run's folder for `wandb sync`. `pricer eval` and `pricer pick` add to the same run: the error by step, and a table
    of at most 500 validation items of the best checkpoint with the first 200 characters of each description."""
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = "pricer"
    """W&B project of the run. It is also part of the repository name that `hub.repo: auto` makes."""


class RunConfig(_Section):
    """All settings of a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    prompt: PromptConfig = PromptConfig()
    adapter: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    hub: HubConfig = HubConfig()
    tracking: TrackingConfig = TrackingConfig()
