"""Starts a loopback Hub by hand: `python -m tests.loopback_hub [--port PORT] [--user NAME]`; Ctrl-C ends it."""

import argparse
import contextlib
import threading

from tests.loopback_hub.hub import LoopbackHub

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.loopback_hub", description="Start a loopback Hub.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free port)")
    parser.add_argument("--user", default="ann", help="name of the account that the printed token belongs to")
    arguments = parser.parse_args()
    with LoopbackHub(arguments.port) as hub:
        token = hub.add_user(arguments.user)
        print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={token} HF_HUB_DISABLE_XET=1", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
