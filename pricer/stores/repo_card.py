"""What a repository of another trainer says of its training data: in its README's metadata, its text and its configs.

Everything here comes from a stranger. It is bounded in size, and read as text: no YAML makes an object.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from pricer.core.held_out import Claim
from pricer.core.items import Split, name_split
from pricer.stores.card_text import find_data_sets, find_trained_splits, split_sentences
from pricer.stores.files import parse_json
from pricer.stores.hub import Hub

README = "README.md"
# Files of a model or a tokenizer, and the Trainer's log. Any other JSON or YAML file beside an adapter may be a config:
# AutoTrain calls it training_params.json, people give it any name.
_NO_CONFIG = re.compile(
    r"(config|trainer_state|vocab|chat_template)\.json|.*\.index\.json"
    r"|(tokenizer|adapter|special_tokens|added_tokens|generation|preprocessor|processor).*"
)
_CONFIG = re.compile(r"[^/]+\.(json|yaml|yml)")
_MAX_CONFIGS = 10
# Maximum size of a file in bytes: PyYAML takes two seconds for as much.
_LARGEST = 200_000
# The last line of a card that `pricer pick` wrote. It says what was scored, not what another trainer trained on.
_BY_PRICER = "Written by pricer"
_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
# A card may name an old data set of the Hub, without a user. In a config, such a word is anything.
_CARD_ID, _ID = (re.compile(f"({_NAME}/){end}{_NAME}", re.ASCII) for end in ("?", ""))

# Settings that name the data set, its split and its subset: of axolotl, AutoTrain, TRL's scripts and people's own.
_DATA_KEYS = (
    *("path", "data_path", "dataset", "dataset_name", "dataset_id", "dataset_path", "dataset_name_or_path"),
    *("train_dataset", "train_data", "data"),
)
_SPLIT_KEYS = ("split", "train_split", "training_split", "dataset_split", "dataset_train_split")
_SUBSET_KEYS = ("name", "subset", "config_name", "dataset_config", "dataset_config_name")
# How a mapping below one of _DATA_KEYS or `datasets` may name the data set.
_NAME_KEYS = ("name", "id", "repo", "repo_id")
_NOT_TRAINED = re.compile(r"(?:^|_)(?:eval\w*|tests?|val|valid\w*)(?:_|$)", re.IGNORECASE)


def read_claims(hub: Hub, source: str) -> tuple[list[Claim], list[str]]:
    """The claims in the README and the configs on the branch `main`, and notes about files that are too large to be
    read. `source` is the data set that the user asks about: a sentence may name it without a link.
    """
    claims, notes = list[Claim](), list[str]()
    files = hub.all_files("main")
    configs = sorted(name for name in files if _CONFIG.fullmatch(name) and not _NO_CONFIG.fullmatch(name))
    for name in [README, *configs[:_MAX_CONFIGS]]:
        if (file := files.get(name)) is None:
            continue
        if file.size > _LARGEST:
            notes.append(f"{name} of {hub.repo} has {file.size:,} bytes: what it says of training data is not read")
            continue
        text = hub.download("main", file, _LARGEST).read_text(encoding="utf-8", errors="replace")
        if name == README:
            claims += [] if _BY_PRICER in text else claims_of_card(text, source)
        else:
            claims += _claims_of_config(parse_json(text) if name.endswith("json") else read_as_text(text), name)
    return claims, notes


def claims_of_card(card: str, source: str) -> list[Claim]:
    """The claims of a model card: in its metadata, in configs in its YAML blocks, and in its sentences."""
    metadata, body = _split_card(card)
    claims = list(_claims_of_metadata(read_as_text(metadata)))
    prose, blocks = _split_blocks(body)
    for block in blocks:
        claims += _claims_of_config(read_as_text(block), f"the config in {README}")
    known = {source, *(claim.dataset for claim in claims if claim.dataset)}
    for sentence in split_sentences(prose):
        data_sets, splits = find_data_sets(sentence, known), find_trained_splits(sentence)
        if data_sets or splits:
            claims += [Claim(data_set, splits, README) for data_set in data_sets or (None,)]
    return claims


def read_as_text(document: str) -> Any:
    """A YAML document as mappings, lists and texts; None for an empty value, and for a text that is not YAML.

    Its nodes are read instead of its values: no tag makes an object, and no alias, which is left out, repeats a part.
    """
    try:
        return _node_as_text(yaml.compose(document, Loader=yaml.SafeLoader), set())
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _node_as_text(node: yaml.Node | None, seen: set[int]) -> Any:
    if node is None or id(node) in seen or node.tag == "tag:yaml.org,2002:null":
        return None
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        pairs = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        return {key.value: _node_as_text(value, seen) for key, value in pairs}
    if isinstance(node, yaml.SequenceNode):
        return [_node_as_text(each, seen) for each in node.value]
    return node.value


def _split_card(card: str) -> tuple[str, str]:
    """The YAML at the top of a card, which is empty if there is none, and the Markdown below it."""
    lines = card.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return "", card
    end = next((at for at, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"), 0)
    return "\n".join(lines[1:end]), "\n".join(lines[end + 1 :])


def _split_blocks(body: str) -> tuple[str, list[str]]:
    """The Markdown without its blocks of code, and the content of each YAML block."""
    prose, blocks = list[str](), list[str]()
    block: list[str] | None = None
    is_yaml = False
    for line in body.splitlines():
        fence = line.strip()
        if not fence.startswith("```"):
            (prose if block is None else block).append(line)
        elif block is None:
            block, is_yaml = [], fence.removeprefix("```").strip().lower() in ("yaml", "yml")
        else:
            blocks += ["\n".join(block)] if is_yaml else []
            block = None
    return "\n".join(prose), blocks


def _claims_of_metadata(metadata: Any) -> Iterator[Claim]:
    """The data sets under `datasets`, and those of the results in `model-index`.

    The Trainer writes the split that was evaluated into the results. Only `train` says what was trained on.
    """
    if not isinstance(metadata, dict):
        return
    for name in _ids(metadata.get("datasets"), _CARD_ID):
        yield Claim(name, (), README)
    for result in _mappings(metadata.get("model-index")):
        for measured in _mappings(result.get("results")):
            for data_set in _mappings(measured.get("dataset")):
                splits = tuple(split for split in _splits(data_set.get("split")) if split is Split.TRAIN)
                for name in _ids(data_set.get("type"), _CARD_ID):
                    yield Claim(name, splits, README, _subset(data_set, ("config",)))


def _claims_of_config(config: Any, where: str) -> Iterator[Claim]:
    """The data sets that the settings of a trainer name, however deep, without those for evaluation."""
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        key, value = left.pop()
        if isinstance(value, list):
            left += [(key, each) for each in value]
        elif isinstance(value, dict):
            splits = [split for name in _SPLIT_KEYS for split in _splits(value.get(name))]
            if key == "datasets" and "path" in value and not any(name in value for name in _SPLIT_KEYS):
                splits = [Split.TRAIN]  # axolotl's default
            names = (*_DATA_KEYS, *(_NAME_KEYS if key in (*_DATA_KEYS, "datasets") else ()))
            for name in dict.fromkeys(name for each in names for name in _ids(value.get(each))):
                yield Claim(name, tuple(dict.fromkeys(splits)), where, _subset(value, _SUBSET_KEYS))
            left += [(name, inside) for name, inside in value.items() if not _NOT_TRAINED.search(name[:100])]
        elif key == "datasets":
            for name in _ids(value):
                yield Claim(name, (), where)


def _ids(value: Any, pattern: re.Pattern[str] = _ID) -> list[str]:
    """The ids of data sets among one text or several."""
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if isinstance(text, str) and pattern.fullmatch(text)]


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def _splits(value: Any) -> list[Split]:
    """The splits that a setting names, for example `train+validation[:10%]`. A part of a split counts as all of it."""
    texts = value if isinstance(value, list) else [value]
    parts = [part for text in texts if isinstance(text, str) for part in text.split("+")]
    return [split for part in parts if (split := name_split(part))]


def _subset(values: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    found = (values[key] for key in keys if isinstance(values.get(key), str))
    return next((name for name in found if name != "default" and "/" not in name), None)
