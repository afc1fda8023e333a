"""Train one GPT: `train(config)` yields an Evaluation at every evaluation step; closing it ends it.

    python -m gpt.train RUN_DIR

trains what RUN_DIR/config.json says, writes events.jsonl and checkpoints there, and continues from
the last checkpoint when it is started again. SIGTERM, SIGINT and SIGHUP stop it at a checkpoint.
Knows nothing of sweeps: final training, a sweep's trial and a run by hand all enter here.
"""

import math
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from gpt import checkpoint, faults
from gpt.allocator import keep_freed_memory
from gpt.config import TrainConfig, read_config
from gpt.data import Batches, TokenData, prepare
from gpt.disk import disk_error, is_disk_error
from gpt.errors import BusyError, InputError
from gpt.evaluate import Scores, hidden_states, score, temperature_perplexity, yardsticks
from gpt.events import Evaluation, append_event, attempts
from gpt.head import linear_loss
from gpt.model import GPT
from gpt.optim import learning_rate_at, make_optimizer
from gpt.story_scores import write_story_scores

ALIVE_SECONDS = 10.0  # between two signs of life; a watchdog waits many times as long


class Diverged(ArithmeticError):
    """The training loss or its gradient became infinite or NaN; the optimiser has not used it.

    Attributes:
        step: Optimiser steps that were finished before.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


@dataclass
class Counters:
    """Where a run stands between two optimiser steps; saved with every checkpoint."""

    step: int = 0
    loss_sum: float = 0.0  # training objective, summed over the steps since the last evaluation
    steps_since_evaluation: int = 0
    seconds_since_evaluation: float = 0.0
    seconds: float = 0.0  # training and evaluation
    grad_norm: float = 0.0
    learning_rate: float = 0.0


class Run:
    """A model, its optimiser, data and counters: what a step changes and a checkpoint holds."""

    def __init__(self, config: TrainConfig, data: TokenData) -> None:
        torch.set_num_threads(config.threads)
        if config.device == "cpu":
            keep_freed_memory()
        torch.manual_seed(config.seed)
        self.config = config
        self.device = torch.device(config.device)
        self.model = GPT(config).to(self.device)
        self.optimizer = make_optimizer(self.model, config)
        self.batches = Batches(data.train, config.block_size, config.batch_size, config.seed)
        self.validation = data.validation(
            config.block_size, config.eval_tokens, config.eval_skip_tokens
        )
        self.counters = Counters()
        self.scores: Scores | None = None  # of the last evaluation
        self.hidden = torch.compile(self.model) if config.compile else self.model

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in config.dtype; weights, sums and the optimiser stay float32."""
        if self.config.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def step(self) -> None:
        """One optimiser step.

        Raises:
            Diverged: the loss or the gradient is not finite; weights are as before.
        """
        started, config, counters = time.perf_counter(), self.config, self.counters
        counters.learning_rate = learning_rate_at(counters.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = counters.learning_rate
        loss = faults.reach("step", counters.step, self._backward())
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), config.grad_clip or math.inf
        ).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                counters.step,
                f"training loss {loss:g}, gradient norm {norm:g} after step {counters.step} "
                f"at learning rate {counters.learning_rate:.3g}",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        counters.step += 1
        counters.loss_sum += loss
        counters.steps_since_evaluation += 1
        counters.grad_norm = norm
        seconds = time.perf_counter() - started
        counters.seconds += seconds
        counters.seconds_since_evaluation += seconds

    def _backward(self) -> float:
        """Gradients of the mean objective over one step's micro-batches; returns that mean."""
        total = 0.0
        for _ in range(self.config.gradient_accumulation_steps):
            idx, targets = (x.to(self.device, non_blocking=True) for x in self.batches.next())
            with self.autocast():
                loss = linear_loss(
                    self.hidden(idx).flatten(0, 1),
                    self.model.lm_head.weight,
                    targets.flatten(),
                    self.config.loss,
                    **self.config.loss_options,
                )
            loss = loss / self.config.gradient_accumulation_steps
            loss.backward()
            total += loss.item()
        return total

    def evaluate(self) -> Evaluation:
        """Measure the model on validation and start a new interval.

        Raises:
            Diverged: the cross-entropy is not finite.
        """
        started, counters = time.perf_counter(), self.counters
        config, data, weight = self.config, self.validation, self.model.lm_head.weight
        hidden = hidden_states(self.model, data, config.batch_size, self.autocast())
        self.scores = score(hidden, weight, data, config.loss, config.loss_options)
        measured = yardsticks(self.scores, data.text_bytes)
        if not math.isfinite(measured.cross_entropy):
            raise Diverged(
                counters.step,
                f"validation cross-entropy {measured.cross_entropy:g} at step {counters.step}",
            )
        tempered = temperature_perplexity(hidden, weight, data) if self.done else None
        counters.seconds += time.perf_counter() - started
        tokens_per_step = self.config.tokens_per_step
        interval = counters.steps_since_evaluation
        result = Evaluation(
            step=counters.step,
            tokens=counters.step * tokens_per_step,
            train_loss=counters.loss_sum / interval,
            **asdict(measured),
            temperature_perplexity=tempered,
            learning_rate=counters.learning_rate,
            grad_norm=counters.grad_norm,
            tokens_per_second=interval * tokens_per_step / counters.seconds_since_evaluation,
            elapsed_seconds=counters.seconds,
            peak_memory_bytes=_peak_memory(self.device),
        )
        counters.loss_sum = counters.seconds_since_evaluation = 0.0
        counters.steps_since_evaluation = 0
        return result

    @property
    def done(self) -> bool:
        """Whether the last step has been made."""
        return self.counters.step >= self.config.max_steps

    @property
    def at_evaluation(self) -> bool:
        """Whether the grid of evaluations holds this step; the last step always is on it."""
        return self.counters.step % self.config.eval_interval == 0 or self.done

    def save(self, run_dir: Path) -> None:
        """Write a checkpoint; of a run that is done, only the weights."""
        weights = {k: v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        state = {"counters": asdict(self.counters), "batches": self.batches.state_dict()}
        optimizer = None if self.done else self._optimizer_tensors()
        checkpoint.save(run_dir, self.counters.step, weights, optimizer, state)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Continue exactly where `save` was called."""
        self.model.load_state_dict(saved.model, strict=False)  # lm_head.weight is wte.weight
        self.counters = Counters(**saved.state["counters"])
        self.batches.load_state_dict(saved.state["batches"])
        if saved.optimizer is not None:
            self._load_optimizer_tensors(saved.optimizer)

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """AdamW's state by parameter name, and the states of the random generators."""
        tensors = {
            f"{key}.{name}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def _load_optimizer_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)


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
        Diverged: the loss or the gradient became infinite or NaN.
    """
    check_device(config.device)
    data = prepare(config.data)
    data.require(config.block_size)
    if config.vocab_size != data.meta.vocab_size:
        raise InputError(
            f"vocab_size must be the tokenizer's {data.meta.vocab_size}, "
            f"but got {config.vocab_size}; change it in the configuration."
        )
    run = Run(config, data)
    saved = None
    if run_dir:
        shutil.copyfile(
            data.tokenizer_path, run_dir / "tokenizer.json"
        )  # to sample without the cache
        saved = _last_checkpoint(run_dir, note)
    if saved:
        run.restore(saved)
        note(f"continues at step {saved.step}")
    while not run.done:
        if stop():
            if run_dir:
                run.save(run_dir)
            return
        run.step()
        if run.at_evaluation:
            faults.reach("evaluation", run.counters.step)
            evaluation = run.evaluate()
            if run_dir and run.done:
                write_story_scores(run_dir, run.scores, run.validation)
            random_state = torch.get_rng_state()
            yield evaluation
            torch.set_rng_state(random_state)  # the CPU's: what the caller drew changes nothing
            if run_dir:
                run.save(run_dir)


def _last_checkpoint(run_dir: Path, note: Callable[[str], None]) -> checkpoint.Checkpoint | None:
    """What to continue from; None: from the start, also where every checkpoint is damaged."""
    try:
        saved = checkpoint.load(run_dir)
    except checkpoint.Damaged as error:
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
        DiskError: the run cannot be written; its last checkpoint is as it was.
        Diverged: see `train`; it is in the log.
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
    faults.reach("start")
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
    except Diverged as error:
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
    return "disk" if isinstance(error, OSError) and is_disk_error(error) else "error"


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was refused; of the CPU's, torch tells only in a RuntimeError's text."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def check_device(device: str) -> None:
    """Raise InputError unless torch can train on `device`."""
    if device == "cpu":
        return
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise InputError(f"device must be cpu, cuda or cuda:N, but got {device!r}.")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise InputError(
            f"device {device} is not there: torch sees {count} CUDA devices; use --device cpu."
        )


def _peak_memory(device: torch.device) -> int:
    """Largest memory so far, in bytes: the allocator's on CUDA, the process's on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


def main() -> int:
    """Exit code of `python -m gpt.train RUN_DIR`: 0 done or stopped, an InputError's, 1 otherwise.

    74, a disk that takes nothing, tells the driver of a sweep to launch no other trial.
    """
    asked: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda number, frame: asked.append(number))
    try:
        _train_here(Path(sys.argv[1]), stop=lambda: bool(asked))
    except InputError as error:
        _say(f"error: {error}", 2)
        return error.exit_code
    except Diverged as error:
        _say(f"diverged: {error}", 2)
        return 1
    return 0


def _train_here(run_dir: Path, stop: Callable[[], bool]) -> None:
    faults.arm(run_dir)
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
