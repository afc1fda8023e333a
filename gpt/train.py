"""Train one GPT: `train(config)` yields an Evaluation at every evaluation step; closing it ends it.

    python -m gpt.train RUN_DIR

trains the run of RUN_DIR/config.json, writes events.jsonl and checkpoints there, and continues from
the last checkpoint when it is started again. SIGTERM, SIGINT and SIGHUP stop it at a checkpoint.
Final training, a sweep's trial and a run by hand all enter here. Started by torchrun, several
processes train the run together, see gpt.system.distributed.
"""

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from gpt import checkpoint
from gpt.config import TrainConfig, choices, read_config, train_config
from gpt.data.dataset import TokenData, prepare
from gpt.errors import BusyError, DivergedError, InputError, SquenSweepError, StorageError
from gpt.evaluate import write_story_scores
from gpt.events import Evaluation, append_event, attempts, read_events
from gpt.losses.options import check_choice
from gpt.plugins.load import load_plugins
from gpt.sample import sample_from
from gpt.system import distributed
from gpt.system.files import atomic_write_text, disk_error, is_disk_error
from gpt.system.signals import noted
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
        InputError: the device, the data or an optimiser's package is not there, or the text is too
            short.
        NetworkError: see gpt.data.dataset.prepare.
        StorageError: see gpt.data.dataset.prepare.
        DataError: the checkpoint was made with another configuration.
        DivergedError: the loss or the gradient became infinite or NaN.
    """
    distributed.local_device(config.device)  # before the text, which may take long
    data = prepare(config.data)
    data.require(config.block_size)
    if config.vocab_size != data.meta.vocab_size:
        raise InputError(
            f"vocab_size must be the tokenizer's {data.meta.vocab_size}, "
            f"but got {config.vocab_size}; change it in the configuration."
        )
    trainer = Trainer(config, data)
    if trainer.not_compiled:
        note(f"trains uncompiled, which is slower: {trainer.not_compiled}")
    saved = _last_checkpoint(run_dir, note) if run_dir else None
    if saved:
        trainer.restore(saved)
        note(f"continues at step {saved.step}")
    if not distributed.is_first():
        run_dir = None  # one writer
    if run_dir:
        _keep_tokenizer(run_dir, data)
    while not trainer.done:
        if distributed.any_process(stop()):
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
                if trainer.at_sample:
                    note(f"step {evaluation.step}: {sample_from(trainer.model, data.encoding())}")


def _keep_tokenizer(run_dir: Path, data: TokenData) -> None:
    """Copy the tokenizer, unless it is there, so that the run is sampled without the cache."""
    path, content = run_dir / "tokenizer.json", data.tokenizer_path.read_bytes()
    if not path.is_file() or path.read_bytes() != content:
        atomic_write_text(path, content.decode())


def _last_checkpoint(run_dir: Path, note: Callable[[str], None]) -> checkpoint.Checkpoint | None:
    """Load the checkpoint to continue from; None to start anew, also if all are damaged."""
    with distributed.first_process_first():
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
        BusyError: another process trains in this directory, or has taken the run over.
        StorageError: the run cannot be written; its last checkpoint is as it was.
        DivergedError: see `train`; it is in the log.
    """
    if not distributed.is_first():
        yield from _train_along(run_dir, stop)
        return
    config = read_config(run_dir / "config.json")
    step = 0

    def note(message: str) -> None:
        append_event(run_dir, "note", message=message)
        show(message)

    with only_trainer(run_dir):
        append_event(run_dir, "start", pid=os.getpid(), attempt=attempts(run_dir) + 1)
        fence = _Fence(run_dir)
        try:
            config = with_loaded_plugins(config, run_dir)
            evaluations = train(config, run_dir, _with_heartbeat(run_dir, stop, fence), note)
            with closing(evaluations), distributed.peers_blamed():
                for evaluation in evaluations:
                    fence.check()
                    step = evaluation.step
                    append_event(run_dir, "evaluation", **asdict(evaluation))
                    yield evaluation
        except DivergedError as error:
            append_event(run_dir, "error", outcome="diverged", step=error.step, message=str(error))
            raise
        except SupersededError:
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            with suppress(OSError):  # a full disk takes no more events
                append_event(run_dir, "error", outcome=_outcome(error), step=step, message=message)
            raise
        saved = checkpoint.load(run_dir)
        step = saved.step if saved else 0
        # with patience before the last step; a run that was extended has no optimiser at its start
        early = config.patience is not None or step >= config.max_steps
        done = saved is not None and saved.optimizer is None and early
        append_event(run_dir, "done" if done else "stopped", step=step)


def _train_along(run_dir: Path, stop: Callable[[], bool]) -> Generator[Evaluation, None, None]:
    """Train a run in a process that is not its first, and so writes nothing."""
    config = with_loaded_plugins(read_config(run_dir / "config.json"), run_dir)
    with closing(train(config, run_dir, stop)) as evaluations, distributed.peers_blamed():
        yield from evaluations


def with_loaded_plugins(config: TrainConfig, folder: Path) -> TrainConfig:
    """Load the plugins of a run, and check what it trains with once more.

    Raises:
        InputError: see gpt.plugins.load.load_plugins; or a plugin does not define what is named.
    """
    if config.plugins:
        load_plugins(config.plugins, folder)
        for field, known in choices().items():
            options = getattr(config, f"{field}_options")
            try:
                check_choice(field, known, getattr(config, field), options)
            except ValueError as error:
                raise InputError(f"{error}.") from None
        train_config(config.model_dump())  # rules that need the plugin's choices
    return config


@contextmanager
def only_trainer(run_dir: Path) -> Iterator[None]:
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


class SupersededError(BusyError):
    """Another process has taken this run over."""


class _Fence:
    """Ends a trainer that was believed dead, before it writes to a run that another one continues.

    The lock of the directory keeps a second trainer out where file locks reach the other machine. A
    node that a cluster has lost may train on, and not every shared file system locks across nodes.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        _, self._offset = read_events(run_dir)

    def check(self) -> None:
        """Raise SupersededError if a process has started here after this one."""
        new, self._offset = read_events(self._run_dir, self._offset)
        if any(event["event"] == "start" for event in new):
            raise SupersededError(
                f"{self._run_dir} must have one trainer, but a later process has started there; "
                f"this one ends."
            )


def _with_heartbeat(run_dir: Path, stop: Callable[[], bool], fence: _Fence) -> Callable[[], bool]:
    """Wrap `stop`, which is called before every step, to log a sign of life now and then."""
    last = time.monotonic()

    def stop_with_heartbeat() -> bool:
        nonlocal last
        stopped = stop()
        due = time.monotonic() - last > ALIVE_SECONDS
        if stopped or due:
            fence.check()
        if due:
            append_event(run_dir, "alive")
            last = time.monotonic()
        return stopped

    return stop_with_heartbeat


def _outcome(error: Exception) -> str:
    """Return the name in the log for a run that an error ended."""
    if isinstance(error, distributed.PeerError):
        return error.outcome
    if isinstance(error, DivergedError):
        return "diverged"
    if is_out_of_memory(error):
        return "oom"
    full = isinstance(error, OSError) and is_disk_error(error)
    return "disk" if full or isinstance(error, StorageError) else "error"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory was refused.

    For the CPU's, torch raises a plain RuntimeError; so do cuBLAS and cuDNN, whose status it is.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    )


def preload() -> None:
    """Import what the first optimiser step would import, which takes a second."""
    import torch._dynamo  # noqa: F401


def main() -> int:
    """Run `python -m gpt.train RUN_DIR`; return the exit code, 0 if done or stopped."""
    signals: list[int] = []
    try:
        with noted(signals), distributed.joined(_outcome):
            _train_and_say(Path(sys.argv[1]), lambda: bool(signals) or distributed.is_orphan())
    except SquenSweepError as error:
        if distributed.is_first():
            kind = "diverged" if isinstance(error, DivergedError) else "error"
            _say(f"{kind}: {error}", 2)
        return error.exit_code
    return 0


def _train_and_say(run_dir: Path, stop: Callable[[], bool]) -> None:
    for evaluation in train_directory(run_dir, stop, show=_say):
        if distributed.is_first():
            _say(f"step {evaluation.step}: perplexity {evaluation.perplexity:.3f}")


def _say(line: str, descriptor: int = 1) -> None:
    """Print a line; on a full disk it is dropped, since the events hold the same.

    Unbuffered: Python would try to flush a buffer at its end and exit with code 120.
    """
    with suppress(OSError):
        os.write(descriptor, f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
