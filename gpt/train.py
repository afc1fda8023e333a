"""Train one GPT: `train(config)` yields an Evaluation at every evaluation step; closing it ends it.

    python -m gpt.train RUN_DIR

trains what RUN_DIR/config.json says, writes events.jsonl and checkpoints there, and continues from
the last checkpoint when it is started again. SIGTERM, SIGINT and SIGHUP stop it at a checkpoint.
Knows nothing of sweeps: final training, a sweep's trial and a run by hand all enter here.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
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
        config: The run.
        run_dir: Where checkpoints go, at every evaluation; an existing one is continued.
        stop: Asked before every step; true saves a checkpoint and ends the run early.
        note: Told what a reader of the log should know.

    Yields:
        One Evaluation at every eval_interval steps and at the last step. A checkpoint follows it.

    Raises:
        InputError: the device or the data are not there, or the text is too short.
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
        shutil.copyfile(
            data.tokenizer_path, run_dir / "tokenizer.json"
        )  # to sample without the cache
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
    """What to continue from; None: from the start, also where every checkpoint is damaged."""
    try:
        saved = checkpoint.load(run_dir)
    except checkpoint.DamagedCheckpointError as error:
        note(f"starts again from step 0: no checkpoint is whole ({'; '.join(error.reasons)})")
        checkpoint.discard(run_dir)
        return None
    for damaged in saved.skipped if saved else ():
        note(f"passed over a damaged checkpoint: {damaged}")
    return saved


def train_directory(
    run_dir: Path,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[str], None] = lambda message: None,
) -> Generator[Evaluation, None, None]:
    """Train what run_dir/config.json says, and log it in run_dir/events.jsonl.

    Args:
        run_dir: With a config.json.
        stop: See `train`.
        show: Told each note of the log.

    Yields:
        The evaluations that this call makes; none if the run is done already.

    Raises:
        InputError: see `train`.
        BusyError: another process trains in this directory.
        StorageError: the run cannot be written; its last checkpoint is as it was.
        DivergedError: see `train`; it is in the log.
    """
    config = read_config(run_dir / "config.json")
    try:
        with FileLock(run_dir / ".lock", timeout=0):
            yield from _train_logged(config, run_dir, stop, show)
    except Timeout:
        raise BusyError(f"{run_dir} must have one trainer, but another process is at it.") from None
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise disk_error(run_dir, error.strerror) from error


def _train_logged(
    config: TrainConfig, run_dir: Path, stop: Callable[[], bool], show: Callable[[str], None]
) -> Generator[Evaluation, None, None]:
    append_event(run_dir, "start", pid=os.getpid(), attempt=attempts(run_dir) + 1)
    step = 0

    def note(message: str) -> None:
        append_event(run_dir, "note", message=message)
        show(message)

    try:
        with closing(train(config, run_dir, _alive(run_dir, stop), note)) as evaluations:
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


def _alive(run_dir: Path, stop: Callable[[], bool]) -> Callable[[], bool]:
    """`stop`, which is asked before every step, and now and then a sign of life in the log."""
    last = time.monotonic()

    def asked() -> bool:
        nonlocal last
        if time.monotonic() - last > ALIVE_SECONDS:
            append_event(run_dir, "alive")
            last = time.monotonic()
        return stop()

    return asked


def _outcome(error: Exception) -> str:
    """How the log names the end of a run by this error."""
    if is_out_of_memory(error):
        return "oom"
    full = isinstance(error, OSError) and is_disk_error(error)
    return "disk" if full or isinstance(error, StorageError) else "error"


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was refused; of the CPU's, torch tells only in a RuntimeError's text."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def main() -> int:
    """Exit code of `python -m gpt.train RUN_DIR`: 0 done or stopped, an InputError's, 1 otherwise.

    74, a disk that takes nothing, tells the driver of a sweep to launch no other trial.
    """
    asked: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda number, frame: asked.append(number))
    try:
        _train_here(Path(sys.argv[1]), stop=lambda: bool(asked))
    except SquenSweepError as error:
        kind = "diverged" if isinstance(error, DivergedError) else "error"
        _say(f"{kind}: {error}", 2)
        return error.exit_code
    return 0


def _train_here(run_dir: Path, stop: Callable[[], bool]) -> None:
    for evaluation in train_directory(run_dir, stop, show=_say):
        _say(f"step {evaluation.step}: perplexity {evaluation.perplexity:.3f}")


def _say(line: str, descriptor: int = 1) -> None:
    """Print, maybe into a log on a full disk: then what the events hold must do.

    Without a buffer, which Python would write again at its end and turn the exit code into 120.
    """
    with suppress(OSError):
        os.write(descriptor, f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
