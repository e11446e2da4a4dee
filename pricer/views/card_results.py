"""The measured results of a model card in words, and as the Hub reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.metrics import METRICS
from pricer.views import formatting

_WORDS = {Split.VAL: "validation", Split.TEST: "test"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the held-out items come from. `own` maps the splits that the source had of its own to their names in a Hub
    data set (None: the split of a file or a column); None if that is not known. `by_time`: the other splits were cut by
    time.
    """

    own: Mapping[str, str | None] | None
    by_time: bool = False

    def name(self, evaluation: Evaluation) -> str | None:
        """The name that a Hub data set gives to the split of an evaluation; None if the split is not the data set's."""
        return (self.own or {}).get(str(evaluation.spec.split))

    def describe(self, evaluation: Evaluation, code: Callable[[str], str] = str) -> str:
        """The scored items in words. `code` marks the name of a split."""
        split = evaluation.spec.split
        word = _WORDS.get(split, str(split)) if isinstance(split, Split) else split
        counted = f"{evaluation.metric('mae').n:,}"
        if self.own is None:
            return f"{counted} {word} items"
        if split not in self.own:
            how = "by time" if self.by_time else "by a hash of their texts"
            return f"{counted} {word} items, which pricer held out {how}"
        name = self.own[split]
        if name is None:
            return f"{counted} items of the source's own {word} split"
        return f"{counted} items of the data set's own split {code(name)}"


@dataclass(frozen=True, slots=True)
class Result:
    """The chosen checkpoint's value of one metric. `split` is the data set's own name of the split; None if the data
    set has no such split. `items` says in words what was measured, `label` is the metric in words.
    """

    split: str | None
    items: str
    metric: str
    label: str
    value: float


def list_results(val: Evaluation, test: Evaluation | None, origin: Origin) -> tuple[Result, ...]:
    """The results that the metadata state, those on the test split first. The Hub tells results on one data set apart
    by the name of the split alone. If two splits have no name, only the test split is stated.
    """
    shown = [test, val] if test else [val]
    if test and origin.name(test) == origin.name(val):
        shown = [test]
    return tuple(
        Result(origin.name(e), origin.describe(e), name, formatting.description(name, e.spec.rule), metric.value)
        for e in shown
        for name in METRICS
        if (metric := e.metric(name)).value is not None
    )


_BASELINES = {
    "train median": "always answers the median price of the training items",
    "tf-idf + ridge": "is a linear regression on the words",
    "base embeddings + ridge": "is a linear regression on what the base makes of the text",
    "untuned base": "is the base without an adapter",
}


def describe_baselines(names: Sequence[str], code: Callable[[str], str]) -> str:
    """What each of these baselines is, in clauses; empty if none of them is known. `code` marks their names."""
    return "; ".join(f"{code(name)} {_BASELINES[name]}" for name in names if name in _BASELINES)
