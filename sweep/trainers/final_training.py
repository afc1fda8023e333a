"""Train a configuration file to its last step, in this process.

It enters gpt.train where a sweep's trials do, so an exported trial trains again digit for digit.
"""

import json
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from gpt import checkpoint
from gpt.config import TrainConfig, read_config, train_config
from gpt.data.dataset import prepare
from gpt.errors import DivergedError, InputError, StorageError
from gpt.events import Evaluation, evaluation_of, read_events
from gpt.optim import check_installed
from gpt.system.device import check_device
from gpt.system.files import atomic_write_text
from gpt.system.signals import noted
from sweep.study.format import duration, is_terminal, perplexity
from sweep.trainers.long_run.longer import extend
from sweep.trainers.long_run.scale import changes_in_words, check_memory, read_scale, scaled

CONFIG = "config.json"


class TrainingFailedError(RuntimeError):
    """Raised when a run ends before its last step for a reason that a restart would meet again."""


def prepare_run(
    path: Path,
    run_dir: Path,
    *,
    steps: int | None = None,
    scale: str | None = None,
    data: str | None = None,
    column: str | None = None,
    device: str | None = None,
    gpus: int | None = None,
    changes: Mapping[str, Any] | None = None,
    show: Callable[[str], None],
) -> TrainConfig:
    """Make `run_dir` the directory of the run that a configuration file and some changes describe.

    Args:
        path: See `read_config_file`.
        run_dir: A new directory, or one of the same run.
        steps: Optimiser steps instead of the file's.
        scale: Another size, see sweep.trainers.long_run.scale.read_scale.
        data: Other text: "auto", "hub", "built-in" or a path.
        column: Of the text in that data, where it is a table.
        device: Another device.
        gpus: CUDA devices, or with the device "cpu" processes, that train it together.
        changes: Other fields of the configuration, by name.
        show: Called with what takes long, and with the notice that comes with the text.

    Returns:
        The configuration, pinned to its text.

    Raises:
        InputError: one of these cannot work; nothing was written then.
    """
    from gpt.plugins.load import in_run_dir, with_plugins
    from gpt.system.distributed import share_of_batch
    from gpt.train import with_loaded_plugins
    from sweep.trainers.several_gpus import check_gpus

    config = with_loaded_plugins(read_config_file(path), path.parent)
    tuned, config = config, config if scale is None else scaled(config, _read(scale, steps))
    if steps is not None:
        config = with_steps(config, steps)
    if column is not None and data is None:
        raise InputError("--column must come with --data, whose column it is, but got none.")
    if data is not None:
        config = with_data(config, data, column)
    if changes:
        config = train_config(config.model_dump() | dict(changes))
    if device is not None or gpus is not None:
        config = config.model_copy(update={"device": device or "cuda"})
    if config.warmup_steps >= config.max_steps:
        raise InputError(
            f"{path}: warmup_steps must be below max_steps, or the run never reaches its learning "
            f"rate, but got warmup_steps={config.warmup_steps} and max_steps={config.max_steps}."
        )
    if gpus is None:
        check_device(config.device)
    else:
        check_gpus(gpus, config.device)
        share_of_batch(config.batch_size, config.gradient_accumulation_steps, gpus)
    check_installed(config.optimizer)
    for line in [*changes_in_words(tuned, config), check_memory(config)] if scale else ():
        show(line)
    check_claim(run_dir)
    config, notice = with_prepared_data(config, show, new_vocabulary=data is not None)
    if notice:
        show(f"NOTICE: {notice}")
    files, config = config, in_run_dir(config)
    claim(run_dir, config, show)
    with_plugins(files, path.parent, run_dir)
    return config


def _read(scale: str, steps: int | None) -> dict[str, int]:
    wanted = read_scale(scale)
    if steps is not None and "steps" in wanted:
        raise InputError(f"--steps must not come with steps in --scale, but got {scale}.")
    return wanted


def read_config_file(path: Path) -> TrainConfig:
    """Read a configuration from a .toml or .json file, such as `squen-sweep export` writes.

    Raises:
        InputError: no such file, another suffix, no TOML or JSON, or no configuration.
    """
    parsers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
    if (path / CONFIG).is_file():
        raise InputError(f"{path} must be a file, but it is a run directory; pass {path / CONFIG}.")
    if path.suffix not in parsers:
        raise InputError(
            f"{path} must be a .toml or .json configuration; `squen-sweep export` writes one."
        )
    try:
        values = parsers[path.suffix](path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} must be a configuration file, but: {error.strerror}.") from None
    except ValueError as error:  # of JSON, TOML and UTF-8 alike
        raise InputError(f"{path} must be {path.suffix[1:].upper()}, but {error}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a table of keys, but got {type(values).__name__}.")
    if "search" in values or "budget" in values:
        raise InputError(
            f"{path} must be the configuration of one run, but it is a study; "
            f"`squen-sweep run --study {shlex.quote(str(path))}` runs it, and "
            f"`squen-sweep export --study NAME -o best.toml` writes its best configuration."
        )
    if "command" in values:
        raise InputError(
            f"{path} must be a configuration of the built-in GPT, but it is a program's; "
            f"run the line at its top, which trains it again."
        )
    return train_config(values, where=str(path))


def with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """Return the same run over another number of optimiser steps.

    A longer run keeps the warm-up. In a shorter one it shrinks in proportion: with a learning rate
    that hardly reaches its peak, it would be another run.

    Raises:
        InputError: `steps` is below 1.
    """
    if steps < 1:
        raise InputError(f"--steps must be at least 1, but got {steps}.")
    warmup = config.warmup_steps
    if steps < config.max_steps:
        warmup = min(warmup * steps // config.max_steps, steps - 1)
    return train_config(config.model_dump() | {"max_steps": steps, "warmup_steps": warmup})


def with_data(config: TrainConfig, source: str, column: str | None = None) -> TrainConfig:
    """Return the same run on other text, no longer pinned to the one it was exported with.

    The column is the other text's, too: None is "text", or the only one that holds strings.
    """
    changes = {"fingerprint": None, "column": column}
    data = config.data.with_source(source).model_copy(update=changes)
    return config.model_copy(update={"data": data})


def with_prepared_data(
    config: TrainConfig, progress: Callable[[str], None], new_vocabulary: bool = False
) -> tuple[TrainConfig, str | None]:
    """Return the run pinned to the text that is prepared now, and the notice of that text.

    Args:
        config: The run; its text need not be prepared.
        progress: Called with what is being done.
        new_vocabulary: Take the tokenizer's size instead of insisting on the configuration's.

    Raises:
        InputError: the text is not there, too short, or of another vocabulary.
    """
    tokens = prepare(config.data, progress)
    tokens.require(config.block_size)
    size = tokens.meta.vocab_size
    if size != config.vocab_size and not new_vocabulary:
        raise InputError(
            f"vocab_size must be {size}, as the tokenizer of {tokens.meta.name} has it, "
            f"but got {config.vocab_size}."
        )
    data = config.data.model_copy(update={"fingerprint": tokens.meta.fingerprint})
    return config.model_copy(update={"data": data, "vocab_size": size}), tokens.meta.notice


def check_claim(run_dir: Path, config: TrainConfig | None = None) -> None:
    """Raise InputError unless `run_dir` is new, empty, or a run of this configuration."""
    if (run_dir / CONFIG).exists():
        if config is not None:
            _refuse_other(run_dir, read_config(run_dir / CONFIG), config)
    elif run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise InputError(
            f"{run_dir} must be a new directory or a run's, but it holds something else; "
            f"pass another --out."
        )


def claim(
    run_dir: Path, config: TrainConfig, show: Callable[[str], None] = lambda line: None
) -> None:
    """Make `run_dir` the directory of this run; one of the same run stays as it is, or is extended.

    Args:
        run_dir: A new directory, or one of the same run or of a shorter one.
        config: The run.
        show: Called with what it means that a run is extended.

    Raises:
        InputError: the directory holds another run or something else.
        StorageError: it cannot be written.
    """
    if (run_dir / CONFIG).exists() and extend(run_dir, read_config(run_dir / CONFIG), config, show):
        return
    check_claim(run_dir, config)
    if (run_dir / CONFIG).exists():
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        atomic_write_text(run_dir / CONFIG, config.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise StorageError(
            f"{run_dir} must be writable, but: {error.strerror}; pass another --out."
        ) from None


def is_done(run_dir: Path) -> bool:
    """Return True if this run was trained to its last step and its weights are there.

    Raises:
        InputError: they are damaged.
    """
    events, _ = read_events(run_dir)
    done = any(event["event"] == "done" for event in events)
    return done and checkpoint.load(run_dir) is not None


def continue_run(run_dir: Path, max_steps: int, gpus: int = 1) -> int | None:
    """Train `run_dir` from its newest checkpoint to its last step; print each evaluation.

    Ctrl-C once, SIGTERM or SIGHUP stops it at a checkpoint; Ctrl-C twice stops it now.

    Returns:
        The signal that stopped it early; None if it is complete.

    Raises:
        InputError: see gpt.train.train_directory.
        PeerError: of several processes one failed.
        KeyboardInterrupt: Ctrl-C came twice.
        TrainingFailedError: the loss is no longer finite, or memory ran out.
    """
    from gpt.system.distributed import PeerError
    from gpt.train import is_out_of_memory, train_directory
    from sweep.trainers.several_gpus import train_on_several

    show = _show_bar if is_terminal() else _show_lines
    signals: list[int] = []

    def stop() -> bool:
        return bool(signals)

    try:
        with (
            noted(signals, twice_interrupts=True),
            closing(
                train_directory(run_dir, stop, print)
                if gpus == 1
                else train_on_several(run_dir, gpus, stop, print)
            ) as evaluations,
        ):
            show(evaluations, max_steps)
    except PeerError as error:
        if error.outcome not in ("diverged", "oom"):
            raise
        raise TrainingFailedError(str(error)) from None
    except (DivergedError, RuntimeError, MemoryError) as error:
        if not (isinstance(error, DivergedError) or is_out_of_memory(error)):
            raise
        raise TrainingFailedError(str(error).splitlines()[0]) from None
    return None if is_done(run_dir) else signals[0]


def evaluations_of(run_dir: Path) -> list[Evaluation]:
    """Return the evaluations of a run by step, of two of a step the first."""
    events, _ = read_events(run_dir)
    logged = [evaluation_of(event) for event in events if event["event"] == "evaluation"]
    by_step = {evaluation.step: evaluation for evaluation in reversed(logged)}
    return [by_step[step] for step in sorted(by_step)]


def final_metrics(run_dir: Path) -> str:
    """Return all metrics of a run's last evaluation, and the best one of all, in two lines."""
    evaluations = evaluations_of(run_dir)
    best, last = min(evaluations, key=lambda e: e.cross_entropy), evaluations[-1]
    perplexities = {
        "perplexity": last.perplexity,
        "of the loss's link": last.link_perplexity,
        "mean of stories": last.story_perplexity,
        "at the best temperature": last.temperature_perplexity,
    }
    shown = [f"{name} {perplexity(x)}" for name, x in perplexities.items() if x is not None]
    return (
        f"{', '.join(shown)}; {last.bits_per_byte:.4f} bits per byte, "
        f"accuracy {last.accuracy:.1%}, calibration error {last.calibration_error:.4f}, "
        f"Brier score {last.brier_score:.4f}, entropy {last.entropy:.4f} nats, "
        f"mean squared logit {last.mean_squared_logit:.2f} at step {last.step}\n"
        f"lowest perplexity: {perplexity(best.perplexity)} at step {best.step}"
    )


def _refuse_other(run_dir: Path, old: TrainConfig, new: TrainConfig) -> None:
    ours, theirs = new.model_dump(), old.model_dump()
    differing = [
        f"{key} is {theirs[key]} there and {ours[key]} here"
        for key in ours
        if ours[key] != theirs[key]
    ]
    if differing:
        raise InputError(
            f"{run_dir} must hold the same run, but {differing[0]}; "
            f"pass another --out for a new one."
        )


def _show_lines(evaluations: Iterable[Evaluation], max_steps: int) -> None:
    for evaluation in evaluations:
        print(_line(evaluation, max_steps), flush=True)


def _show_bar(evaluations: Iterable[Evaluation], max_steps: int) -> None:
    """Show a bar that moves at each evaluation and a running clock, with the lines above them."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, refresh_per_second=1) as bar:
        task = bar.add_task("", total=max_steps)
        for evaluation in evaluations:
            bar.console.print(_line(evaluation, max_steps), highlight=False)
            left = f"{duration(_seconds_left(evaluation, max_steps))} left"
            bar.update(task, completed=evaluation.step, description=left)


def _line(evaluation: Evaluation, max_steps: int) -> str:
    return (
        f"step {evaluation.step}/{max_steps}: perplexity {perplexity(evaluation.perplexity)}, "
        f"training loss {evaluation.train_loss:.4f}, {evaluation.tokens_per_second:,.0f} tokens/s, "
        f"{duration(_seconds_left(evaluation, max_steps))} left"
    )


def _seconds_left(evaluation: Evaluation, max_steps: int) -> float:
    """Extrapolate the run's seconds per step so far."""
    return (max_steps - evaluation.step) * evaluation.elapsed_seconds / evaluation.step
