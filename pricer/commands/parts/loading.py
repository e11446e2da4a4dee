"""Load what training needs: the model with its adapter, and how a step is computed on this device."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pricer.commands.parts.setup import Setup, load_base_of, record_dequantized
from pricer.commands.parts.several_processes import leading
from pricer.commands.parts.watcher import Watcher
from pricer.core.ranks import Ranks
from pricer.ml.adapters import add_adapter
from pricer.ml.base import dense_bytes
from pricer.ml.devices import device_name
from pricer.ml.micro_batch import StepSettings, choose_sharded_settings, choose_step_settings
from pricer.ml.processes import Processes
from pricer.ml.token_table import TokenTable
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Training:
    """A model with its adapter, its training examples, and how a step is computed. `facts` are for run.json."""

    model: Any
    examples: TokenTable
    settings: StepSettings
    facts: dict[str, Any]

    def leading(self, ranks: Ranks, setup: Setup, state: Path | None = None) -> AbstractContextManager[Processes]:
        """A context in which the other processes train with this one, from a training state or from the beginning."""
        return leading(ranks, setup, self.model, self.settings, dense=not dense_bytes(self.model), state=state)


def load_training(setup: Setup, examples: TokenTable, run: Run | None, ranks: Ranks, watcher: Watcher) -> Training:
    """Load everything that training needs. A resumed `run` computes a step as it did before on this device, because
    another division into parts is rounded differently. If the config has changed, it chooses again.
    """
    config = setup.config.train
    model = add_adapter(load_base_of(setup, run, sharded=ranks.sharded), setup.config.adapter, config.seed)
    device = device_name(setup.precision)
    requested = config.model_dump(include={"batch_size", "micro_batch", "activation_checkpointing", "compile"})
    requested |= {"processes": ranks.count, "sharded": ranks.sharded}
    known = run.facts().get("step_settings", {}) if run else {}
    if known.get(device, {}).get("requested") == requested:
        settings = StepSettings(**known[device]["settings"])
    elif ranks.sharded:
        settings = choose_sharded_settings(model, examples, config, ranks.count)
    else:
        pad = setup.tokenizer.pad_token_id
        settings = choose_step_settings(model, examples, config, pad, watcher.note, processes=ranks.count)
    facts: dict[str, Any] = {"cut_train": float(examples.cut.mean()), "processes": ranks.count}
    facts["step_settings"] = {**known, device: {"requested": requested, "settings": asdict(settings)}}
    if run is None and not ranks.sharded:
        facts["dense"] = record_dequantized(setup, model)
    return Training(model, examples, settings, facts)
