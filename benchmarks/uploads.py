"""What uploading costs training: the same run without a Hub and with one that fails, in turns, in one sitting.

    python benchmarks/uploads.py [REPEATS]

The Hub is the loopback one of the tests, in a process of its own; 30 % of all requests fail. The time is that of
training alone, from the first step to the last checkpoint that is handed over, as run.json has it: what is still to be
uploaded then costs the user time, but the GPU none.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.loopback_hub import LoopbackHub

# 10 epochs of 30 steps, a checkpoint each 12: 25 of them.
SETTINGS = {
    "data.train_limit": 480,
    "data.val_limit": 16,
    "adapter.r": 8,
    "train.epochs": 10,
    "train.batch_size": 16,
    "train.checkpoint_every": 12,
    "train.val_items": 0,
}


def train(name: str, *options: str, folder: Path, env: dict[str, str]) -> float:
    """Train once; the seconds between the beginning and the end of training."""
    settings = [option for key, value in SETTINGS.items() for option in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "pricer", "train", "quickstart", "--run", name, *settings, *options]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    facts = folder / "runs" / name / "run.json"
    while True:
        try:
            process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            if facts.exists() and json.loads(facts.read_text())["finished"]:
                process.kill()  # what is left to upload is not what is measured
                process.communicate()
                break
        else:
            assert process.returncode == 0, name
            break
    record = json.loads(facts.read_text())
    began, ended = (datetime.fromisoformat(record[key]) for key in ("started", "finished"))
    return (ended - began).total_seconds()


def main() -> None:
    """Print the seconds of each run and the ratio of the medians."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    without, with_hub, pushed = [], [], []
    with tempfile.TemporaryDirectory() as scratch, LoopbackHub() as hub:
        token = hub.add_user("ann")
        # One core trains, the other is free for the rest, as beside a GPU.
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": f"{scratch}/home",
        }
        for repeat in range(repeats):
            without.append(train(f"without-{repeat}", folder=Path(scratch), env=env))
            hub.faults.random(rate=0.3, seed=repeat, spare="/api/repos/create")
            repo = f"ann/run-{repeat}"
            with_hub.append(train(f"with-{repeat}", "--repo", repo, folder=Path(scratch), env=env))
            hub.faults.clear()
            pushed.append(len(hub.repo(repo).tags))
            seconds = f"{without[-1]:.1f} s without a Hub, {with_hub[-1]:.1f} s with"
            print(f"{repeat}: {seconds}; {pushed[-1]} of 25 pushed meanwhile", flush=True)
    ratio = statistics.median(with_hub) / statistics.median(without)
    print(f"median of {repeats}: {ratio:.3f} times the training time without a Hub")


if __name__ == "__main__":
    main()
