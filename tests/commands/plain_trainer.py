"""The Trainer's own pushes: a process that trains one small adapter after the other, whichever stdin asks for.

Each line of stdin is a repository and a hub_strategy. The answers on stdout are a line `saved` after the last save,
whose push may still be under way, and a line `pushed` at the end.
"""

import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

EXAMPLES = [
    {"prompt": f"What does this cost?\n\nA lamp of {watts} watts\n\nPrice is $", "completion": f"{watts:04}"}
    for watts in range(10, 34)
]


class Teller(TrainerCallback):
    """Says when the last checkpoint is saved. The Trainer has begun to push it by then, or skipped that."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == args.max_steps:
            print("saved", flush=True)


def train(folder: Path, repo: str, strategy: str) -> None:
    """Six steps, a save after each second one, and the push that people make at the end."""
    config = SFTConfig(
        output_dir=str(folder / repo),
        push_to_hub=True,
        hub_model_id=repo,
        hub_strategy=strategy,
        save_strategy="steps",
        save_steps=2,
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        logging_steps=100,
        dataloader_pin_memory=False,
    )
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    dataset = Dataset.from_list(EXAMPLES)
    trainer = SFTTrainer("acme/base", config, train_dataset=dataset, peft_config=lora, callbacks=[Teller()])
    trainer.train()
    trainer.push_to_hub()


if __name__ == "__main__":
    for line in sys.stdin:
        name, how = line.split()
        train(Path(sys.argv[1]), name, how)
        print("pushed", flush=True)
