"""What a repository says of its run, taken over by the machine that trained it."""

from pricer.commands.parts.hub_records import with_local_paths
from pricer.config import DataConfig, ModelConfig, RunConfig
from pricer.stores.published import published_config


def test_the_machine_that_trained_a_run_keeps_its_paths() -> None:
    own = RunConfig(
        data=DataConfig(source="/home/ann/lamps.csv", val_source="/home/ann/held.csv"),
        model=ModelConfig(base="/home/ann/llama"),
    )
    there = published_config(own)
    later = there.model_copy(update={"data": there.data.model_copy(update={"val_source": "other.csv", "unit": "€"})})

    found = with_local_paths(later, own)

    assert (found.data.source, found.data.val_source) == ("/home/ann/lamps.csv", "other.csv")
    assert (found.model.base, found.data.unit) == ("/home/ann/llama", "€")
