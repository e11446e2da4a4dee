"""Ray clusters: start one on this machine or join one, and start the actors of an evaluation."""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pricer
from pricer.commands.parts.ray_workers import RayWorkers, explain_ray_error
from pricer.commands.parts.workers import Worker, WorkerMachine
from pricer.config import ModelConfig
from pricer.errors import ModelError, first_line

# Seconds without a worker after which the user is told.
_PATIENCE = 60.0
# Seconds for a connection to the head of a cluster.
_TIMEOUT = 5.0
_HINT = "on a node of the cluster, --ray auto (with RAY_AUTH_MODE=token if it has tokens); on one machine, --ray local"


@contextmanager
def open_workers(
    address: str, count: int | None, model: ModelConfig, note: Callable[[str], None]
) -> Iterator[RayWorkers]:
    """Connect to Ray at an address (`local`: start it here; `auto`: the cluster of this node; HOST:PORT), and start
    `count` actors. None: one for each GPU of the cluster; without GPUs, or for a model on the CPU, one for each CPU.
    They end with this context.
    """
    ray = _import_ray(address)
    try:
        _connect(ray, address, count)
        resources = ray.cluster_resources()
        gpus, cpus = (int(resources.get(name, 0)) for name in ("GPU", "CPU"))
        has_gpus = gpus > 0 and model.device != "cpu"
        count = count or (gpus if has_gpus else cpus)
        if not count:
            raise ModelError(f"the Ray cluster at {address} has no GPU and no CPU", "ray status")
        share = {"num_gpus": 1, "num_cpus": 1} if has_gpus else {"num_cpus": max(1, cpus // count)}
        start = ray.remote(Worker).options(**share).remote
        actors = [start() for _ in range(count)]
        machine = _ask(ray, actors[0], model, note)
        note(f"{count} Ray worker{'s' if count > 1 else ''} ({machine.device})")
        yield RayWorkers(ray, actors, start, machine, note)
    finally:
        ray.shutdown()


def _import_ray(address: str) -> Any:
    # Ray reads these when it is imported. It sends statistics of its use to its authors otherwise.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == "local":
        # Even then, Ray listens on every network interface, and whoever can connect can run code here. With a token
        # that only the processes of this command know, nobody else can.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
        import ray._private.worker
        import ray.exceptions
    except ImportError:
        raise ModelError("--ray needs Ray, which is not installed", "pip install 'pricer[ray]'") from None
    # Otherwise, a thread of Ray prints to stdout that an actor has died. There is no public setting for it.
    ray._private.worker._worker_logs_enabled = False
    return ray


def _connect(ray: Any, address: str, count: int | None) -> None:
    if "://" in address:
        raise ModelError(
            f"--ray {address}: answers cannot go through a Ray client",
            "start pricer on a node of the cluster, with --ray auto",
        )
    _refuse_silent_port(address)
    own = {}
    if address == "local":
        own = {"include_dashboard": False, "num_cpus": max(count or 1, os.cpu_count() or 1)}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ConnectionError, ImportError, RuntimeError, ValueError, OSError) as error:
        raise ModelError(
            f"there is no Ray cluster at {address}: {first_line(error)}",
            _HINT,
        ) from None


def _refuse_silent_port(address: str) -> None:
    """Raise a ModelError if nothing listens at HOST:PORT. Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), _TIMEOUT).close()
        except (OSError, OverflowError) as error:
            raise ModelError(f"there is no Ray cluster at {address}: {first_line(error)}", _HINT) from None


def _ask(ray: Any, actor: Any, model: ModelConfig, note: Callable[[str], None]) -> WorkerMachine:
    """The machine of an actor. A ModelError unless it has this version of pricer."""
    try:
        call = actor.describe.remote(model)
        if not ray.wait([call], timeout=_PATIENCE)[0]:
            note("still waiting for Ray to start a worker; `ray status` shows what is free")
        machine: WorkerMachine = ray.get(call)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise ModelError(
            f"no worker can start: {explain_ray_error(error)}",
            f"pip install 'pricer[ray]=={pricer.__version__}' on every node",
        ) from None
    if machine.version != pricer.__version__:
        raise ModelError(
            f"the workers have pricer {machine.version}, this is {pricer.__version__}", "install the same on every node"
        )
    return machine
