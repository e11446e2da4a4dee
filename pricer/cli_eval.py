"""The command `pricer eval`."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pricer.cli_errors import exit_codes
from pricer.cli_options import JsonOption, RepoOption, RunOption, SetOption, make_option, refuse_if, refuse_run_and_repo

if TYPE_CHECKING:
    from pricer.core.cells import Shard


@exit_codes()
def evaluate(
    run: RunOption = None,
    all_checkpoints: Annotated[bool, make_option("--all-checkpoints", "Score every checkpoint.")] = False,
    checkpoint: Annotated[
        str | None, make_option("--checkpoint STEP|ID|best|last", "Score one. Default: last.")
    ] = None,
    split: Annotated[Literal["val", "test"] | None, make_option("--split", "Items to score on. Default: val.")] = None,
    data: Annotated[
        str | None, make_option("--data FILE", "Score on all items of other data: a file, folder, …")
    ] = None,
    limit: Annotated[int | None, make_option("--limit N", "Only the first N items.", minimum=1)] = None,
    repo: RepoOption = None,
    config: Annotated[str | None, make_option("--config CONFIG", "With --repo: the data and the prompt.")] = None,
    override: SetOption = None,
    race: Annotated[bool, make_option("--race", "With --all-checkpoints: drop the worse half in rounds.")] = False,
    shard: Annotated[
        str | None, make_option("--shard I/N", "Only answer part I of N. Another eval merges the parts and scores.")
    ] = None,
    merge: Annotated[
        bool, make_option("--merge", "Take the answers that shards pushed to the Hub. Trust who can write there.")
    ] = False,
    ray: Annotated[
        str | None, make_option("--ray ADDRESS", "Answer on Ray: local, auto (this node's cluster) or HOST:PORT.")
    ] = None,
    workers: Annotated[
        int | None,
        make_option("--workers N", "With --ray: number of workers. Default: all GPUs, else all CPUs.", minimum=1),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score checkpoints and baselines on held-out items."""
    refuse_run_and_repo(run, repo)
    is_own = repo is None and (config is not None or bool(override))
    refuse_if(is_own, "--config", "a run has its own config; only with --repo is there a choice")
    is_both = all_checkpoints and checkpoint is not None
    refuse_if(is_both, "--checkpoint", "give --all-checkpoints or --checkpoint, not both")
    refuse_if(race and not all_checkpoints, "--race", "a race compares several checkpoints: add --all-checkpoints")
    refuse_if(data is not None and split is not None, "--split", "--data scores all items, whatever their split")
    is_val = data is None and split in (None, "val")
    refuse_if(race and not is_val, "--race", "a race chooses a checkpoint, which only --split val may do")
    refuse_if(merge and shard is not None, "--merge", "a shard answers; merge when all shards have ended")
    refuse_if(ray is not None and shard is not None, "--ray", "a shard is for one process; give --ray or --shard")
    refuse_if(ray is not None and not ray.strip(), "--ray", "the address is empty; on one machine, --ray local")
    refuse_if(workers is not None and ray is None, "--workers", "only Ray has workers: add --ray local")
    part = _parse_shard(shard) if shard is not None else None
    from pricer.core.items import Split
    from pricer.views import terminal, terminal_evaluations, terminal_progress

    with terminal_progress.Watcher() as watcher, ExitStack() as stack:
        from pricer.commands.evaluate import evaluate_job
        from pricer.commands.parts.delivery import Delivery, find_answers, plan_merge
        from pricer.commands.parts.hub_runs import GivenConfig, open_run
        from pricer.commands.parts.jobs import plan_other_data, plan_split
        from pricer.commands.parts.ray_cluster import open_workers
        from pricer.commands.parts.wandb_report import send
        from pricer.commands.shard import answer_shard
        from pricer.config_file import config_path

        given = GivenConfig(config_path(config) if config else None, override or [])
        source = open_run(run, repo, watcher.note, given)
        answers = find_answers(source) if merge or (part is not None and repo is not None) else None
        which = "all" if all_checkpoints else checkpoint or "last"
        actors = None
        if ray is not None:
            actors = stack.enter_context(open_workers(ray, workers, source.config().model, watcher.note))
        if data is not None:
            job = plan_other_data(source, which, data, limit, watcher, actors)
        else:
            job = plan_split(source, which, Split(split or "val"), limit, watcher, actors)
        if part is not None:
            delivery = Delivery(answers, part, watcher) if answers else None
            answered = answer_shard(job, part, watcher, race=race, delivery=delivery, given=given)
        else:
            fill = plan_merge(job, answers, watcher) if answers else None
            result = evaluate_job(job, watcher, race=race, fill=fill)
    if part is not None:
        terminal_evaluations.answered(answered, as_json=as_json)
        return
    terminal_evaluations.evaluated(result, as_json=as_json)
    sys.stdout.flush()  # W&B may take a while
    send(result.run, result.report, terminal.note, "the evaluation stands")


def _parse_shard(text: str) -> "Shard":
    from pricer.core.cells import parse_shard

    try:
        return parse_shard(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from None
