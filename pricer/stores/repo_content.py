"""Explains what a Hub repository holds that has no checkpoint which pricer can read."""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from shlex import quote

from pricer.errors import CheckpointError, HubError
from pricer.stores.adapter_places import Head
from pricer.stores.cached_repo import RepoReader
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG
from pricer.stores.hub import Refs

_SHARD = re.compile(r"adapter_model-\d+-of-\d+\.(safetensors|bin)")
_FULL_MODEL = re.compile(r"(model|consolidated)[^/]*\.safetensors")
_PICKLED_MODEL = re.compile(r"(pytorch_model|model|consolidated)[^/]*\.(bin|pth|pt)")
_MLX = re.compile(r"([0-9]+_)?adapters\.(safetensors|npz)")
# Every new repository has these.
_EMPTY = {".gitattributes", "README.md", "LICENSE", ".gitignore"}
# Maximum number of branches that are looked into for an adapter.
_MAX_BRANCHES = 20

_SCORED = "pricer scores LoRA adapters: name the repository that holds one"
# What a file's name says of the repository, and what to do. The first that matches a file counts.
_KINDS: Sequence[tuple[Callable[[str], object], str, str]] = (
    (
        lambda name: name == "adapter_model.bin",
        "{repo} holds its adapter as a pickle ({path}), which can run code when it is read: pricer does not read it",
        "convert it to {adapter} (docs/hub.md, Pickled adapters), and push that to a repository of yours",
    ),
    (
        _SHARD.fullmatch,
        "{repo} holds its adapter in parts ({path}), which neither peft nor pricer reads",
        "its author can push it again as one {adapter}",
    ),
    (
        _MLX.fullmatch,
        "{repo} holds an adapter of MLX ({path}), which is no adapter of peft",
        _SCORED,
    ),
    (
        lambda name: name == "pytorch_lora_weights.safetensors",
        "{repo} holds an adapter for a model of images ({path}), not for a language model",
        _SCORED,
    ),
    (
        _FULL_MODEL.fullmatch,
        "{repo} holds a full model ({path}), not an adapter",
        "pricer scores LoRA adapters: name the repository of the adapter that was merged; to train on this model: "
        "pricer train --set model.base={repo}",
    ),
    (
        _PICKLED_MODEL.fullmatch,
        "{repo} holds a full model as a pickle ({path}), not an adapter",
        "pricer scores LoRA adapters: name the repository of the adapter that was merged",
    ),
    (
        lambda name: name.lower().endswith(".gguf"),
        "{repo} holds GGUF files ({path}), which are for llama.cpp",
        "pricer scores LoRA adapters: name the repository of the adapter that was converted",
    ),
    (
        lambda name: name == ADAPTER_CONFIG,
        "{repo} has an {path}, and no {adapter} beside it",
        "its author can push the adapter again: model.push_to_hub({repo!r})",
    ),
)


def explain_content(reader: RepoReader, refs: Refs, head: Head, problems: Sequence[str]) -> CheckpointError:
    """The error for a repository of another trainer without a checkpoint that can be used. `problems` say why adapters
    cannot be used.
    """
    repo, names = reader.repo, list(head.files)
    if head.folders() and problems:
        more = f" ({len(problems) - 1} more such adapters)" if len(problems) > 1 else ""
        return CheckpointError(f"{problems[0]}{more}")
    if folders := head.folders():
        return CheckpointError(
            f"{repo} holds several adapters that are not the steps of one training: {_list(folders)}",
            "the steps of one training lie in folders that differ in the step alone, as checkpoint-500 and "
            "checkpoint-1000 do; to score one adapter, copy it to a "
            f"repository of its own: hf download {repo} --include {quote(folders[0] + '/*')} --local-dir adapter; "
            f"hf upload USER/NEW {quote('adapter/' + folders[0])}",
        )
    for matches, text, hint in _KINDS:
        if path := next((path for path in names if matches(PurePosixPath(path).name)), None):
            words = {"repo": repo, "path": path, "adapter": ADAPTER}
            return CheckpointError(text.format(**words), hint.format(**words))
    if branches := _branches_with_adapters(reader, refs):
        return CheckpointError(
            f"main of {repo} holds no adapter, its branches do: {_list(branches)}",
            "pricer reads main, and branches and tags that name a step, as step-500 does",
        )
    if set(names) <= _EMPTY:
        return CheckpointError(f"{repo} is empty: no file of a model was pushed to it", _SCORED)
    return CheckpointError(
        f"{repo} holds no adapter that can be read, but {_list(sorted(set(names) - _EMPTY))}",
        f"an adapter is an {ADAPTER} with its {ADAPTER_CONFIG}",
    )


def explain_other_kind(repo: str, kind: str) -> HubError:
    """The error for the id of a data set or a Space in place of a model repository."""
    hint = f"data are named in the config: --set data.source={repo}; " if kind == "data set" else ""
    return HubError(f"{repo} is a {kind} on the Hub, not a model repository", f"{hint}--repo names checkpoints")


def _branches_with_adapters(reader: RepoReader, refs: Refs) -> list[str]:
    others = [(name, commit) for name, commit in refs.branches.items() if name != "main"][:_MAX_BRANCHES]
    return [name for name, commit in others if reader.files(commit, [ADAPTER])]


def _list(names: Sequence[str]) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
