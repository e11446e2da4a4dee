"""Model cards: what the README of a Hub repository says about the chosen checkpoint, and how that was measured."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pricer.core.checkpoints import Checkpoint
from pricer.core.comparison import Comparison
from pricer.core.confirmation import looks_besides
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.metrics import METRICS, Metric
from pricer.core.prompts import PromptTemplate
from pricer.core.selection import Selection
from pricer.views.formatting import measured

TAGS = ("lora", "price-prediction", "pricer")

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
# The Hub's own identifiers look like this, and it refuses a card with a licence that it does not know.
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
# Characters that mean nothing to Markdown in the middle of a code span.
_PLAIN = re.compile(r"[\w ./:@+,-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the run was set, every `auto` settled, as far as its card says it.

    `base_on_hub` and `data_on_hub` say where those come from: a folder `models/llama` looks like a Hub id and is none.
    `train_items` is the number of training items, `max_price` what the dearest item may cost in dollars (None: all are
    in), `has_titles` whether a title stands above the description.
    `target_modules` is `all-linear` or the names of layers.
    """

    base_on_hub: bool
    data_source: str
    data_on_hub: bool
    data_revision: str | None
    train_items: int
    max_price: float | None
    has_titles: bool
    template: PromptTemplate
    quantization: str
    compute_dtype: str
    rank: int
    alpha: int
    dropout: float
    target_modules: str | Sequence[str]
    epochs: float
    batch_size: int
    learning_rate: float
    schedule: str
    seed: int


@dataclass(frozen=True, slots=True)
class Result:
    """The chosen checkpoint's value of one metric on one split; `label` says in words what the metric is."""

    split: str
    metric: str
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Card:
    """What a model card says: metadata for the Hub, and `body`, its Markdown.

    `license`, `base_model` and `dataset_revision` are None and `datasets` empty where nothing true can be stated.
    """

    model_name: str
    license: str | None
    base_model: str | None
    datasets: tuple[str, ...]
    tags: tuple[str, ...]
    dataset_name: str
    dataset_type: str
    dataset_revision: str | None
    results: tuple[Result, ...]
    body: str


def model_card(
    *,
    repo: str,
    checkpoint: Checkpoint,
    commit: str,
    selection: Selection,
    evaluations: Sequence[Evaluation],
    base_license: str | None,
    recipe: Recipe,
    versions: Mapping[str, str],
    pricer_version: str,
    dropped: int = 0,
) -> Card:
    """The card of `checkpoint`, the one that `selection` chose, as it lies at `commit` of the repository `repo`.

    `evaluations` are all there are of the run: those comparable with the selection are shown, others are left out. The
    only number that is free of the choice is the one of the test split, and where there is none the card says so.
    `base_license` is the base's licence as the Hub spells it; None, or what cannot be one: unknown, none is claimed.
    `versions` are of the packages that trained; `dropped` counts those that a race measured only in part. No text
    that comes from outside can be more than text in it.

    A repository that is no `user/name`, or a checkpoint that was not the one chosen, is a ValueError.
    """
    if not _HUB_ID.fullmatch(repo) or "/" not in repo:
        raise ValueError(f"{repo!r} cannot name a repository")
    if checkpoint.id != selection.candidate.id:
        raise ValueError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not the checkpoint that was chosen")
    val = selection.chosen
    test = _test_of(val, evaluations)
    stated = base_license if base_license and base_license != "unknown" and _LICENSE.fullmatch(base_license) else None
    base_id = checkpoint.base if recipe.base_on_hub and _HUB_ID.fullmatch(checkpoint.base) else None
    data_id = recipe.data_source if recipe.data_on_hub and _HUB_ID.fullmatch(recipe.data_source) else None
    base = checkpoint.base if recipe.base_on_hub else _without_folder(checkpoint.base)
    data = recipe.data_source if recipe.data_on_hub else _without_folder(recipe.data_source)
    model_name = repo.split("/")[1]
    parts = [
        f"# {model_name}",
        f"A LoRA adapter for {_code(base)} that answers the description of a product with its price in dollars.",
        *_results(repo, val, test, selection, evaluations, dropped),
        *_use(repo, checkpoint, commit, val, base, recipe),
        *_training(checkpoint, val, base, data, stated, recipe, versions),
        *_limits(pricer_version),
    ]
    return Card(
        model_name=model_name,
        license=stated,
        base_model=base_id,
        datasets=(data_id,) if data_id else (),
        tags=TAGS,
        dataset_name=_line(data) or "unnamed",
        dataset_type=data_id or re.sub(r"[^A-Za-z0-9._-]+", "-", data).strip("-") or "unnamed",
        dataset_revision=_line(recipe.data_revision) if recipe.data_revision and recipe.data_on_hub else None,
        results=tuple(result for evaluation in (val, test) if evaluation for result in _stated(evaluation)),
        body="\n\n".join(parts) + "\n",
    )


def _test_of(val: Evaluation, evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The same checkpoint on the test split, all else being equal; of several the one with most items."""
    alike = [
        e
        for e in evaluations
        if e.candidate.id == val.candidate.id
        and e.spec.split is Split.TEST
        and replace(e.spec, split=val.spec.split, limit=val.spec.limit) == val.spec
    ]
    return max(alike, key=_items, default=None)


def _stated(evaluation: Evaluation) -> list[Result]:
    return [
        Result(evaluation.spec.split.value, name, _described(name), metric.value)
        for name in METRICS
        if (metric := _metric(evaluation, name)) and metric.value is not None
    ]


def _results(
    repo: str,
    val: Evaluation,
    test: Evaluation | None,
    selection: Selection,
    evaluations: Sequence[Evaluation],
    dropped: int,
) -> list[str]:
    parts = [
        "## Results",
        "Beside the chosen checkpoint: the baselines scored on the same items. In brackets: 95% intervals.",
        "### Validation split",
        " ".join([_how_chosen(val, selection, dropped), *([_confirmed(test, selection.metric)] if test else [])]),
        _comparison(val, evaluations),
        "### Test split",
    ]
    if test:
        parts += [
            f"{_items(test):,} items that took no part in the choice of the checkpoint.{_looks(test, evaluations)}",
            _comparison(test, evaluations),
        ]
    else:
        parts.append(
            "Not measured under the same conditions, so no number here is free of that choice. "
            f"`pricer pick --repo {repo} --confirm{selection.options}` measures it."
        )
    return [*parts, "### Validation error by step", _by_step(selection)]


def _confirmed(test: Evaluation, metric: str) -> str:
    on_test = _with_interval(_metric(test, metric))
    return f"On {_items(test):,} test items, which took no part in it, {METRICS[metric].label} is {on_test}."


def _looks(test: Evaluation, evaluations: Iterable[Evaluation]) -> str:
    """Who else was measured on the test split: each look makes the next number a little less of an untouched one."""
    others = sorted(set(looks_besides(evaluations, test.candidate.id, test.spec.fingerprint)))
    if not others:
        return ""
    return f" The split was also looked at for {', '.join(map(_code, others))}, so this is not an untouched number."


def _how_chosen(val: Evaluation, selection: Selection, dropped: int) -> str:
    items, count, name = f"{_items(val):,} items.", len(selection.ranking), METRICS[selection.metric].label
    soups = sum(e.candidate.is_soup for e in selection.ranking)
    which = "an average" if soups == 1 else "averages"
    averages = f" ({soups:,} of them {which} of neighbouring checkpoints)" if soups else ""
    chose = f"{items} **This split chose the checkpoint**: of {count:,}{averages}"
    optimistic = "A number that took part in a choice is optimistic by construction."
    if selection.comparison:
        optimistic += _how_sure(selection.metric, selection.comparison)
    it_is = f"it is the best by {name}"
    if dropped:
        race = f"{dropped:,} more dropped out of a race before they were measured on all of them"
        return f"{chose} measured on all of them {it_is}; {race}. {optimistic}"
    if selection.margin is None:
        return f"{items} Checkpoints are chosen on this split; only this one was measured."
    return f"{chose} that were measured {it_is}, {_lead(selection, selection.margin)}. {optimistic}"


def _lead(selection: Selection, margin: float) -> str:
    if not margin:
        return "level with the next, and the earlier"
    in_dollars = METRICS[selection.metric].unit == "dollars"
    lead = f"${margin:,.2f}" if in_dollars else f"{margin:.4g}"
    if selection.comparison:
        second = selection.comparison.difference(selection.ranking[1].candidate)
        if second and second.interval:
            style = ".2f" if in_dollars else ".4g"
            lead += f" ({second.interval[0]:{style}} – {second.interval[1]:{style}})"
    return f"{lead} better than the next"


def _how_sure(metric: str, comparison: Comparison) -> str:
    others = comparison.others
    alike = sum(not one.is_significant for one in others)
    corrected = _with_interval(Metric(metric, comparison.corrected, comparison.corrected_interval, 0, "lower"))
    return (
        f" {alike:,} of the other {len(others):,} {'is' if alike == 1 else 'are'} not significantly different from the "
        f"best; corrected for the choice, "
        f"{METRICS[metric].label} is {corrected}."
    )


def _comparison(chosen: Evaluation, evaluations: Iterable[Evaluation]) -> str:
    """Metrics by row, the chosen checkpoint and the baselines under the same spec by column."""
    baselines = [e for e in evaluations if e.candidate.is_baseline and e.spec.fingerprint == chosen.spec.fingerprint]
    columns = [chosen, *sorted(baselines, key=lambda e: e.name)]
    rows = [[_described(name), *(_with_interval(_metric(e, name)) for e in columns)] for name in METRICS]
    return _table(["", *(_code(e.name) for e in columns)], [*rows, ["items", *(f"{_items(e):,}" for e in columns)]])


def _by_step(selection: Selection) -> str:
    # The metric that chose belongs into the table, whichever it was.
    metrics = [name for name, metric in METRICS.items() if metric.is_essential or name == selection.metric]
    rows = []
    for evaluation in sorted(selection.ranking, key=lambda e: e.candidate.order):
        candidate = evaluation.candidate
        steps = " + ".join(f"{step:,}" for step in candidate.members or [candidate.step or 0])
        chosen = candidate.id == selection.candidate.id
        rows.append(
            [
                f"**{steps} (chosen)**" if chosen else steps,
                "–" if candidate.epoch is None else f"{candidate.epoch:.2f}",
                *(_with_half(_metric(evaluation, name)) for name in metrics),
                f"{_items(evaluation):,}",
            ]
        )
    return _table(["step", "epoch", *(METRICS[name].label for name in metrics), "n"], rows)


def _use(repo: str, checkpoint: Checkpoint, commit: str, val: Evaluation, base: str, recipe: Recipe) -> list[str]:
    template, width = recipe.template, recipe.template.price_format.width
    above = " (the title, where there is one, in the line above it)" if recipe.has_titles else ""
    form = (
        "the first free-standing number, one behind a dollar sign first"
        if width is None
        else f"the {width} digits it starts with, in whole dollars; fewer are no price"
    )
    return [
        "## Use",
        f"The prompt is the question, a blank line, the description{above}, a blank line, and a last line that the "
        f"answer goes on from. Prompt and answer were at most {template.max_length:,} tokens together: longer "
        f"descriptions were cut at their end. {_estimator(val)}",
        _python(repo, checkpoint, commit, base, val.spec.base_revision, recipe),
        f"The price is {form}. For an answer without a price, the errors above impute the median training price, "
        f"${val.spec.fallback:,.2f}; such an answer is never a hit.",
        f"With pricer: `pricer eval --repo {repo} --checkpoint best`.",
    ]


def _estimator(val: Evaluation) -> str:
    """How a price was read from the model, and how the greedy answer, which is all that plain code gives, compares."""
    if val.spec.estimator == "greedy":
        return "Decoding was greedy, whatever the defaults of the base say."
    greedy = "".join(
        f" Its MAE on the validation items is {_with_half(replace(metric, name='mae'))}."
        for metric in val.estimators
        if metric.name == "greedy"
    )
    return (
        f"The price is the {val.spec.estimator} of the model's distribution over prices, which `pricer predict` gives. "
        f"The code below gives the greedy answer, another estimate.{greedy}"
    )


def _python(repo: str, checkpoint: Checkpoint, commit: str, base: str, base_revision: str, recipe: Recipe) -> str:
    """Code that loads exactly this checkpoint on its base, as it was measured, and asks it for one price. (In 16 bits
    it reads rounded logits, and says so.)
    """
    dtype, at, first, name = f"torch.{recipe.compute_dtype}", "name", "", _literal(base)
    if recipe.base_on_hub:
        at = "name, revision=revision"
        name += f"\nrevision = {_literal(base_revision)}"
    elif base.startswith("builtin:"):
        first = "from importlib.resources import files\n\n"
        name = f'str(files("pricer") / "assets" / {_literal(base.removeprefix("builtin:"))})'
    else:
        name += "  # the folder of the base"
    quantizer, quantization, unpacked = "", "", ""
    if recipe.quantization == "nf4":
        quantizer = "BitsAndBytesConfig, "
        quantization = f"""
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype={dtype},
    ),"""
        unpacked = """
for module in base.modules():  # on some CPUs bitsandbytes would compute at another precision
    if hasattr(module, "support_avx512bf16_for_cpu"):
        module.support_avx512bf16_for_cpu = False"""
    folder = f", subfolder={_literal(checkpoint.folder)}" if checkpoint.folder else ""
    ask = "output = model.generate(**inputs, max_new_tokens=16, do_sample=False, eos_token_id=end, pad_token_id=end)"
    if recipe.compute_dtype != "float32":
        ask = f"""# The adapter computes in 16 bits, as in training. Unlike here, pricer reads logits in float32.
with torch.autocast(model.device.type, dtype={dtype}):
    {ask}"""
    return f"""```python
{first}import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, {quantizer}GenerationConfig

name = {name}
tokenizer = AutoTokenizer.from_pretrained({at})
base = AutoModelForCausalLM.from_pretrained(
    {at},
    dtype={dtype},{quantization}
    device_map="auto",
){unpacked}
base.generation_config = GenerationConfig()  # without the sampling and penalties that some bases bring along
model = PeftModel.from_pretrained(base, {_literal(repo)}, revision={_literal(commit)}{folder})

question = {_literal(recipe.template.question)}
description = "…"
lead = {_literal(recipe.template.lead)}
prompt = f"{{question}}\\n\\n{{description.strip()}}\\n\\n{{lead}}"
inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
end = tokenizer.eos_token_id
{ask}
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""


def _training(
    checkpoint: Checkpoint,
    val: Evaluation,
    base: str,
    data: str,
    stated_license: str | None,
    recipe: Recipe,
    versions: Mapping[str, str],
) -> list[str]:
    if recipe.data_on_hub:
        at = f"at revision {_code(recipe.data_revision)}" if recipe.data_revision else "at no pinned revision"
        source = f"{_code(data)} on the Hub, {at}"
    elif data.startswith("builtin:"):
        source = f"{_code(data)}, which comes with pricer"
    else:
        source = f"a local file, {_code(data)}"
    kind = "commit" if recipe.base_on_hub else "hash of its content"
    held = "4-bit NormalFloat, double quantization" if recipe.quantization == "nf4" else "not quantized"
    targets = recipe.target_modules
    where = "every linear layer" if targets == "all-linear" else ", ".join(map(_code, _names(targets)))
    batch = f"{recipe.batch_size:,} items a step"
    rate = f"learning rate {recipe.learning_rate:g} ({_code(recipe.schedule)})"
    epoch = "an epoch it does not state" if checkpoint.epoch is None else f"epoch {checkpoint.epoch:.2f}"
    this = f"This checkpoint is from step {checkpoint.step:,}, {epoch}."
    rank = f"r {recipe.rank}"
    if members := checkpoint.member_steps:
        steps = ", ".join(f"{step:,}" for step in members)
        this = f"This adapter is the exact average of the checkpoints at steps {steps}, the last of them at {epoch}."
        rank += f" (of the average {len(members) * recipe.rank})"
    dear = "" if recipe.max_price is None else f", items above ${recipe.max_price:,.2f} left out"
    lines = [
        f"Data: {source}{dear}; {recipe.train_items:,} training items, fingerprint of all items "
        f"{_code(val.spec.data_fingerprint)}.",
        f"Base: {_code(base)}, {kind} {_code(val.spec.base_revision)}; held as {_code(recipe.quantization)} ({held}), "
        f"computed in {_code(recipe.compute_dtype)}. The numbers above were measured at {_code(val.spec.precision)}.",
        f"Adapter: LoRA on {where}; {rank}, alpha {recipe.alpha}, dropout {recipe.dropout:g}.",
        f"Run: set to {recipe.epochs:g} epochs, {batch}, {rate}, seed {recipe.seed}. {this}",
    ]
    known = {
        "base revision": checkpoint.base_revision,
        "data": checkpoint.data_fingerprint,
        "prompt": checkpoint.prompt_fingerprint,
    }
    if missing := [what for what, value in known.items() if value is None]:
        lines.append(f"Not stated by the checkpoint, but by the run that measured it: {', '.join(missing)}.")
    if versions:
        packages = ", ".join(f"{name} {versions[name]}" for name in sorted(versions))
        lines.append(f"Trained with: {_code(packages)}.")
    if stated_license:
        lines.append(f"Licence: that of the base, {_code(stated_license)}.")
    else:
        lines.append("Licence: none is stated; that of the base applies, without which this adapter does nothing.")
    return ["## Training", "\n".join(f"- {line}" for line in lines)]


def _limits(pricer_version: str) -> list[str]:
    return [
        "## Limits",
        "Measured was what the tables show, on items from the same source as the training items. Nothing else was "
        "measured: no other source, no other kind of product, no later prices. Items with the same words are in one "
        "split; near copies may be in two. An answer is one number, and says nothing about how sure it is.",
        f"Written by pricer {_code(pricer_version)} from the records of the run.",
    ]


def _described(name: str) -> str:
    return f"{METRICS[name].label}: {METRICS[name].meaning}"


def _metric(evaluation: Evaluation, name: str) -> Metric | None:
    """None for what an older evaluation does not have."""
    return next((metric for metric in evaluation.metrics if metric.name == name), None)


def _items(evaluation: Evaluation) -> int:
    return max((metric.n for metric in evaluation.metrics), default=0)


def _with_interval(metric: Metric | None) -> str:
    text = _value(metric)
    if metric is None or metric.value is None or metric.interval is None:
        return text
    low, high = (_value(replace(metric, value=end)).strip("$%") for end in metric.interval)
    return f"{text} ({low} – {high})"


def _with_half(metric: Metric | None) -> str:
    """Errors in dollars as the commands show them, with half their interval; shares without theirs, it is lopsided."""
    text = _value(metric)
    if metric is None or metric.value is None or metric.interval is None or METRICS[metric.name].unit != "dollars":
        return text
    return f"{text} ± {(metric.interval[1] - metric.interval[0]) / 2:,.2f}"


def _value(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    return measured(metric.value, metric.name)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _names(targets: str | Sequence[str]) -> list[str]:
    return [targets] if isinstance(targets, str) else sorted(targets)


def _without_folder(name: str) -> str:
    """A local path as the public may see it: where it lies on somebody's disk is nobody's business."""
    return name if name.startswith("builtin:") else re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _line(text: str) -> str:
    """One line of characters that can be seen: no breaks, no controls, nothing that turns the writing direction."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _code(text: str) -> str:
    """Any text as code, within a line or a table cell.

    A code span cannot hold every text: the Hub renders mathematics before it reads Markdown, in spans too, and a pipe
    ends a cell. So what has more than plain characters in it has its punctuation spelled as entities.
    """
    text = _line(text)
    if _PLAIN.fullmatch(text):
        return f"`{text}`"
    return f"<code>{re.sub(r'[!-/:-@[-`{-~]', lambda found: f'&#{ord(found[0])};', text)}</code>"


def _literal(text: str) -> str:
    """A Python string that means exactly `text`, and in which neither Markdown nor the Hub's mathematics see anything:
    no line break, no backtick, no $$ and no two backslashes in a row. (Delimiters of the latter: "Can I write LaTeX in
    my model card?" in https://huggingface.co/docs/hub/model-cards.)
    """
    escaped = "".join(
        {"\n": "\\n", '"': '\\"'}.get(c)
        or (c if c.isprintable() and c not in "\\`" and not (c == "$" and before == "$") else _escape(c))
        for before, c in zip(" " + text, text, strict=False)
    )
    return f'"{escaped}"'


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
