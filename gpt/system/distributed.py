"""Several processes that train one model, a device each; a process alone is a group of one.

    torchrun --nproc-per-node 2 -m gpt.train RUN_DIR

starts them with RANK, WORLD_SIZE and LOCAL_RANK in the environment, as `squen-sweep train --gpus 2`
does. All make the same steps, each on its share of every batch: torch averages their gradients, so
that all know the same numbers and decide alike. Only the first writes. CUDA devices speak NCCL,
CPUs gloo.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from gpt.errors import InputError, SquenSweepError
from gpt.system.device import check_device

_T = TypeVar("_T")

# For one that waits for the others: longer than any checkpoint or evaluation of the first takes.
GROUP_TIMEOUT = timedelta(minutes=10)
_FAILURE = "failure"  # a key of the store that all processes share

# Since it joined; torch's own group is a global, too.
_launcher: int | None = None  # process id
_store: Any = None  # torch.distributed.Store, which its type information does not export


class PeerError(SquenSweepError):
    """Raised in every process of a group when another one has failed.

    Attributes:
        outcome: Of the other one, as its log would name it.
        exit_code: Of the other one.
    """

    def __init__(self, message: str, outcome: str, exit_code: int) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.exit_code = exit_code


@contextmanager
def joined(outcome_of: Callable[[Exception], str]) -> Iterator[None]:
    """Join the processes that were started together with this one; alone, do nothing.

    Args:
        outcome_of: Names the error that ends the block for the log, which the first process writes.
    """
    global _store, _launcher  # noqa: PLW0603
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    _launcher = os.getppid()
    _store, rank, world = next(rendezvous("env://", timeout=GROUP_TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    group = dist.PrefixStore("group", _store)  # type: ignore[attr-defined]
    dist.init_process_group(
        backend, timeout=GROUP_TIMEOUT, rank=rank, world_size=world, store=group
    )
    try:
        yield
    except PeerError:
        raise
    except Exception as error:  # the group ends with the process, so that the others notice
        _leave_reason(error, outcome_of(error))
        raise
    dist.destroy_process_group()
    _store = None


def rank() -> int:
    """Index of this process in its group; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes in the group; 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return True in the process that writes."""
    return rank() == 0


def check_devices(device: str, processes: int) -> None:
    """Raise InputError unless so many processes of this machine can train on `device`.

    Args:
        device: "cpu", "cuda", which is a device for each, or, for one process, any device.
        processes: At least 1.
    """
    check_device(device)
    if processes == 1:
        return
    if device not in ("cpu", "cuda"):
        raise InputError(
            f"device must be cuda or cpu for {processes} processes, but got {device!r}."
        )
    if device == "cuda" and processes > torch.cuda.device_count():
        raise InputError(
            f"{processes} processes must have a CUDA device each, but torch sees "
            f"{torch.cuda.device_count()}; start fewer."
        )


def local_device(device: str) -> torch.device:
    """Return this process's device, which becomes CUDA's current one.

    An event of torch.cuda is recorded on the current device, whatever device its numbers are on.

    Raises:
        InputError: see check_devices.
    """
    alone = world_size() == 1
    check_devices(device, 1 if alone else int(os.environ.get("LOCAL_WORLD_SIZE", world_size())))
    own = torch.device(device)
    if own.type == "cuda" and not alone:
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if own.type == "cuda" and own.index is not None:
        torch.cuda.set_device(own)
    return own


def share_of_batch(
    batch_size: int, gradient_accumulation_steps: int, processes: int
) -> tuple[int, int]:
    """Return the sequences of a forward pass and the forward passes of a step of each process.

    The forward passes are shared where that is possible, as in nanoGPT; else their sequences.

    Raises:
        InputError: neither can be shared equally.
    """
    if gradient_accumulation_steps % processes == 0:
        return batch_size, gradient_accumulation_steps // processes
    if batch_size % processes == 0:
        return batch_size // processes, gradient_accumulation_steps
    raise InputError(
        f"batch_size or gradient_accumulation_steps must be a multiple of the {processes} "
        f"processes that share a batch, but got {batch_size} and {gradient_accumulation_steps}."
    )


def averaging_gradients(module: Callable[..., Any], example: Tensor) -> Callable[..., Any]:
    """Wrap a module so that backward averages gradients over the processes; alone, return it.

    Args:
        module: A torch module, compiled or not. Every parameter takes part in its forward pass.
        example: An input, on the device. Torch sorts the gradients by their arrival in the first
            backward pass: it is made here, so that a resumed run adds them up in the same order.
    """
    if world_size() == 1:
        return module
    assert isinstance(module, nn.Module)
    parallel = DistributedDataParallel(module)
    parallel(example).sum().backward()
    module.zero_grad(set_to_none=True)
    return parallel


def accumulating(module: Callable[..., Any], *, more: bool) -> AbstractContextManager[None]:
    """Context of a micro-batch: if `more` are to come, gradients are not averaged yet."""
    if more and isinstance(module, DistributedDataParallel):
        no_sync: AbstractContextManager[None] = module.no_sync()
        return no_sync
    return nullcontext()


def seed_step(seed: int, step: int) -> None:
    """Give each process of a group its own random numbers for a step; alone, do nothing.

    They depend on nothing before the step, so that a checkpoint of the first serves all.
    """
    if world_size() > 1:
        words = np.random.SeedSequence([seed, step, rank()]).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]))


def mean(value: float) -> float:
    """Average a number over the processes."""
    if world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item() / world_size()


def any_process(flag: bool) -> bool:
    """Return True in all processes if `flag` is true in one."""
    return flag if world_size() == 1 else mean(float(flag)) > 0


def gathered(value: _T) -> list[_T]:
    """Return the values of all processes, by rank."""
    if world_size() == 1:
        return [value]
    values: list[_T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return [one for one in values if one is not None]


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process run the block alone, then all others."""
    if not is_first():
        gathered(None)
    yield
    if is_first():
        gathered(None)


def is_orphan() -> bool:
    """Return True in a group whose launcher was killed, so that nobody would stop it."""
    return _launcher is not None and os.getppid() != _launcher


@contextmanager
def peers_blamed() -> Iterator[None]:
    """Raise an error of torch's communication as the PeerError that explains it."""
    try:
        yield
    except RuntimeError as error:
        if _store is None or not _is_of_communication(error):
            raise
        raise reason_of_failure(_store) or PeerError(
            f"all {world_size()} processes must train, but one ended, or stood still for "
            f"{GROUP_TIMEOUT.total_seconds() / 60:g} minutes; run the same command again to go on.",
            "error",
            1,
        ) from None


def _leave_reason(error: Exception, outcome: str) -> None:
    """Leave the reason for which this process ends to the others, unless another was before it."""
    ours = isinstance(error, SquenSweepError)
    message = str(error) if ours else f"{type(error).__name__}: {error}"
    failure = {
        "message": message if is_first() else f"process {rank()} of {world_size()}: {message}",
        "outcome": outcome,
        "exit_code": error.exit_code if isinstance(error, SquenSweepError) else 1,
    }
    with suppress(RuntimeError):  # the process that holds the store has ended
        if _store is not None:
            _store.compare_set(_FAILURE, "", json.dumps(failure))


def reason_of_failure(store: Any) -> PeerError | None:
    """Return what the process that failed first left in the store of its group; None: nothing."""
    with suppress(RuntimeError):  # the process that held the store has ended
        if store.check([_FAILURE]):
            return PeerError(**json.loads(store.get(_FAILURE)))
    return None


def _is_of_communication(error: Exception) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("gloo", "NCCL", "Connection", "Timed out")
    )
