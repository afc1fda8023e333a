"""Train one GPT: `train(config)` yields an Evaluation at every evaluation step; closing it ends it.

    python -m gpt.train RUN_DIR

trains the run of RUN_DIR/config.json, writes events.jsonl and checkpoints there, and continues from
the last checkpoint when it is started again. SIGTERM, SIGINT and SIGHUP stop it at a checkpoint.
Final training, a sweep's trial and a run by hand all enter here.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from gpt import checkpoint
from gpt.config import TrainConfig, read_config
from gpt.data.dataset import prepare
from gpt.errors import BusyError, DivergedError, InputError, SquenSweepError, StorageError
from gpt.evaluate import write_story_scores
from gpt.events import Evaluation, append_event, attempts
from gpt.system.device import check_device
from gpt.system.files import disk_error, is_disk_error
from gpt.trainer import Trainer

ALIVE_SECONDS = 10.0  # between two signs of life; a watchdog waits many times as long


def train(
    config: TrainConfig,
    run_dir: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda message: None,
) -> Generator[Evaluation, None, None]:
    """Train a GPT.

    Sets torch's thread count and random state, as a program that owns its process does.

    Args:
        config: The configuration of the run.
        run_dir: Checkpoints go here, at every evaluation; the last one is continued.
        stop: Called before every step; true saves a checkpoint and ends the run early.
        note: Called with a line for whatever a reader of the log should know.

    Yields:
        One Evaluation at every eval_interval steps and at the last step. A checkpoint follows it.

    Raises:
        InputError: the device or the data are not there, or the text is too short.
        NetworkError: see gpt.data.dataset.prepare.
        StorageError: see gpt.data.dataset.prepare.
        DivergedError: the loss or the gradient became infinite or NaN.
    """
    check_device(config.device)
    data = prepare(config.data)
    data.require(config.block_size)
    if config.vocab_size != data.meta.vocab_size:
        raise InputError(
            f"vocab_size must be the tokenizer's {data.meta.vocab_size}, "
            f"but got {config.vocab_size}; change it in the configuration."
        )
    trainer = Trainer(config, data)
    saved = None
    if run_dir:
        # so that the run can be sampled without the cache
        shutil.copyfile(data.tokenizer_path, run_dir / "tokenizer.json")
        saved = _last_checkpoint(run_dir, note)
    if saved:
        trainer.restore(saved)
        note(f"continues at step {saved.step}")
    while not trainer.done:
        if stop():
            if run_dir:
                trainer.save(run_dir)
            return
        trainer.step()
        if trainer.at_evaluation:
            evaluation = trainer.evaluate()
            if run_dir and trainer.done:
                write_story_scores(run_dir, trainer.scores, trainer.validation)
            random_state = torch.get_rng_state()
            yield evaluation
            torch.set_rng_state(random_state)  # the CPU's: what the caller drew changes nothing
            if run_dir:
                trainer.save(run_dir)


def _last_checkpoint(run_dir: Path, note: Callable[[str], None]) -> checkpoint.Checkpoint | None:
    """Load the checkpoint to continue from; None to start anew, also if all are damaged."""
    try:
        saved = checkpoint.load(run_dir)
    except checkpoint.DamagedCheckpointError as error:
        note(f"starts again from step 0: no checkpoint is intact ({'; '.join(error.reasons)})")
        checkpoint.discard(run_dir)
        return None
    for damaged in saved.skipped if saved else ():
        note(f"skipped a damaged checkpoint: {damaged}")
    return saved


def train_directory(
    run_dir: Path,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[str], None] = lambda message: None,
) -> Generator[Evaluation, None, None]:
    """Train the run of run_dir/config.json, and log it in run_dir/events.jsonl.

    Args:
        run_dir: A folder with a config.json.
        stop: See `train`.
        show: Called with each note of the log.

    Yields:
        The evaluations that this call makes; none if the run is done already.

    Raises:
        InputError: see `train`.
        BusyError: another process trains in this directory.
        StorageError: the run cannot be written; its last checkpoint is as it was.
        DivergedError: see `train`; it is in the log.
    """
    config = read_config(run_dir / "config.json")
    step = 0

    def note(message: str) -> None:
        append_event(run_dir, "note", message=message)
        show(message)

    with _only_trainer(run_dir):
        append_event(run_dir, "start", pid=os.getpid(), attempt=attempts(run_dir) + 1)
        try:
            evaluations = train(config, run_dir, _with_heartbeat(run_dir, stop), note)
            with closing(evaluations):
                for evaluation in evaluations:
                    step = evaluation.step
                    append_event(run_dir, "evaluation", **asdict(evaluation))
                    yield evaluation
        except DivergedError as error:
            append_event(run_dir, "error", outcome="diverged", step=error.step, message=str(error))
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            with suppress(OSError):  # a full disk takes no more events
                append_event(run_dir, "error", outcome=_outcome(error), step=step, message=message)
            raise
        saved = checkpoint.load(run_dir)
        step = saved.step if saved else 0
        append_event(run_dir, "done" if step >= config.max_steps else "stopped", step=step)


@contextmanager
def _only_trainer(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run directory; raise a disk's failure meanwhile as a StorageError."""
    try:
        with FileLock(run_dir / ".lock", timeout=0):
            yield
    except Timeout:
        raise BusyError(
            f"{run_dir} must have one trainer, but another process trains there; wait for its end."
        ) from None
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise disk_error(run_dir, error.strerror) from error


def _with_heartbeat(run_dir: Path, stop: Callable[[], bool]) -> Callable[[], bool]:
    """Wrap `stop`, which is called before every step, to log a sign of life now and then."""
    last = time.monotonic()

    def stop_with_heartbeat() -> bool:
        nonlocal last
        if time.monotonic() - last > ALIVE_SECONDS:
            append_event(run_dir, "alive")
            last = time.monotonic()
        return stop()

    return stop_with_heartbeat


def _outcome(error: Exception) -> str:
    """Return the name in the log for a run that an error ended."""
    if is_out_of_memory(error):
        return "oom"
    full = isinstance(error, OSError) and is_disk_error(error)
    return "disk" if full or isinstance(error, StorageError) else "error"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory was refused; for the CPU's, torch raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def preload() -> None:
    """Import what the first optimiser step would import, which takes a second."""
    import torch._dynamo  # noqa: F401


def main() -> int:
    """Run `python -m gpt.train RUN_DIR`; return the exit code, 0 if done or stopped."""
    signals: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda number, frame: signals.append(number))
    try:
        for evaluation in train_directory(Path(sys.argv[1]), lambda: bool(signals), show=_say):
            _say(f"step {evaluation.step}: perplexity {evaluation.perplexity:.3f}")
    except SquenSweepError as error:
        kind = "diverged" if isinstance(error, DivergedError) else "error"
        _say(f"{kind}: {error}", 2)
        return error.exit_code
    return 0


def _say(line: str, descriptor: int = 1) -> None:
    """Print a line; on a full disk it is dropped, since the events hold the same.

    Unbuffered: Python would try to flush a buffer at its end and exit with code 120.
    """
    with suppress(OSError):
        os.write(descriptor, f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
