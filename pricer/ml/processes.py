"""The processes of one training: they add up gradients, exchange values, and notice when one of them ends.

Each process is a whole training to the Trainer: it sees every batch, and has the optimizer and the schedule of one
process. Only the items of a batch are shared out. So libraries must not learn of the other processes.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pricer.core.ranks import Ranks
from pricer.errors import Interrupted, LostProcess, PricerError, SaidElsewhere, first_line
from pricer.ml.heartbeats import heartbeats

# The processes wait for each other while one prepares data or saves a checkpoint, which may take hours. A process that
# ends closes its connections, which the others notice at once.
_PATIENCE = timedelta(days=2)
# The key under which the first process that fails tells the others why, and the seconds that they wait for it.
_FAILURE, _SECONDS = "failure", 1.0
# The key, with a machine, that counts the processes there that want to say why they end.
_SAID = "said"

T = TypeVar("T")


class Processes:
    """Exchanges values with the other processes of a training. With a single process, nothing is exchanged.

    Every method that exchanges values must be called by all processes in the same order. It raises a LostProcess if
    another one has ended.
    """

    def __init__(self, ranks: Ranks, store: Any = None) -> None:
        self.rank = ranks.rank
        self.count = ranks.count
        self.sharded = ranks.sharded
        """Each process holds a part of the base, so all must compute the same passes."""
        self.step = 0
        """The step that training has reached, for error messages."""
        self.resume = "pricer train --resume"
        """The command that resumes the run, for error messages."""
        self._store = store
        self._machine = ranks.rank - ranks.local_rank  # the first process there

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.count == 1:
            return number
        box = torch.tensor([number])
        with self.noticing():
            distributed.all_reduce(box, op=distributed.ReduceOp.MAX)
        return int(box)

    def gather(self, value: T) -> list[T]:
        """The value of each process, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with self.noticing():
            distributed.all_gather_object(values, value)
        return values

    def receive(self, value: T) -> T:
        """The value of process 0; those of the others do not matter."""
        if self.count == 1:
            return value
        box = [value]
        with self.noticing():
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def add_up(self, parameters: Sequence[Any], loss: torch.Tensor) -> torch.Tensor:
        """Replace each gradient by its sum over the processes, and return the sum of their losses (scalars). All
        processes get the same bits.
        """
        if self.count == 1:
            return loss
        # One message for all tensors: on most networks, a message takes longer to start than to send.
        pieces = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters]
        sums = torch.cat([*pieces, loss.reshape(1).to(pieces[0].dtype)])
        with self.noticing():
            distributed.all_reduce(sums)
        *grads, total = torch.split(sums, [*(piece.numel() for piece in pieces), 1])
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.view_as(parameter)
        return total[0]

    def may_speak(self) -> bool:
        """Whether this process is the first on its machine that asks. It says why all of them end."""
        with suppress(Exception):  # without the store, to say it twice is better than never
            return bool(self._store.add(f"{_SAID}/{self._machine}", 1) == 1)
        return True

    def tell(self, error: BaseException) -> None:
        """Tell the other processes why this one ends, unless another one has failed before it."""
        failure = {"rank": self.rank, "message": f"unexpected {type(error).__name__}: {first_line(error)}", "hint": ""}
        if isinstance(error, PricerError):
            failure |= {"message": error.message, "hint": error.hint}
        with suppress(Exception):  # the process that keeps the store may have ended, too
            self._store.compare_set(_FAILURE, "", json.dumps(failure))

    def describe_silence(self) -> LostProcess:
        """The error for a process that does not answer any more."""
        return LostProcess(
            f"another of the {self.count} processes of this training does not answer {self._when()}",
            f"what was saved is whole; start all processes again: {self.resume}",
        )

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """A context in which values are exchanged. A LostProcess if a connection to another process is lost."""
        try:
            yield
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            raise self._explain(error) from error

    def _explain(self, error: RuntimeError) -> LostProcess:
        """Why another process has ended, as far as it is known."""
        failure = self._read_failure()
        if failure:
            return LostProcess(
                f"process {failure['rank']} of 0 to {self.count - 1} has failed {self._when()}: {failure['message']}",
                failure["hint"] or f"start all processes again: {self.resume}",
            )
        seen = re.sub(r"^\[[^\]]*\] *", "", first_line(error))  # without the line of torch's source
        return LostProcess(
            f"another of the {self.count} processes of this training was ended {self._when()} ({seen})",
            f"what was saved is whole; start all processes again: {self.resume}",
        )

    def _when(self) -> str:
        return f"after step {self.step:,}" if self.step else "before the first step"

    def _read_failure(self) -> dict[str, Any] | None:
        end = time.monotonic() + _SECONDS
        with suppress(Exception):
            while time.monotonic() < end:
                if self._store.check([_FAILURE]):
                    found: dict[str, Any] = json.loads(self._store.get(_FAILURE))
                    return found
                time.sleep(0.1)
        return None


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo has no exception class. Its messages begin with a file of its source.
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


@contextmanager
def joined(ranks: Ranks, end: Callable[[LostProcess], object]) -> Iterator[Processes]:
    """A context in which the processes of a training exchange values. It waits for all of them to enter it.

    `end` is called, in a thread, if another process has been silent for some time, for example because its machine is
    gone. It must end this process, which may wait for the other one for ever.

    If one fails in it, the others fail, too. On each machine, the first to notice keeps its error. It becomes a
    SaidElsewhere in the others.
    """
    if ranks.count == 1:
        yield Processes(ranks)
        return
    root, _, _ = next(rendezvous("env://", ranks.rank, ranks.count, timeout=_PATIENCE))
    # NCCL takes what is on a GPU, gloo the rest. gloo notices a process that has ended, where NCCL waits.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(
        backend,
        store=PrefixStore("group", root),
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=_PATIENCE,
    )
    processes = Processes(ranks, PrefixStore("pricer", root))
    beats = PrefixStore("beats", root.clone())
    # The store may be on a machine that is gone, so it is used while the heartbeats go on.
    with heartbeats(beats, ranks.rank, ranks.count, lambda: end(processes.describe_silence())):
        try:
            yield processes
        except Interrupted:  # all have stopped together
            raise
        except (Exception, KeyboardInterrupt) as error:
            is_first = processes.may_speak()
            if not isinstance(error, LostProcess):
                processes.tell(error)
            if is_first:
                raise
            raise SaidElsewhere(first_line(error)) from error
    distributed.destroy_process_group()
