"""A final training that goes on beyond its steps: `train --steps 4000` after a run of 2,000.

A schedule that holds its peak, wsd or constant, makes the result exact: the two runs are the same
up to where the shorter one's learning rate began to fall, and a run keeps its last checkpoint
before that (gpt.trainer.branch_step). From there it goes on to the figures of a run of 4,000 steps
bit for bit. With cosine or linear the two differ from their first step on: it goes on from the last
weights, with the learning rate that the longer run has there.
"""

from collections.abc import Callable
from pathlib import Path

from gpt import checkpoint
from gpt.config import TrainConfig
from gpt.errors import InputError
from gpt.events import FILE, append_event, read_lines
from gpt.events import parse_event as parse
from gpt.system.files import atomic_write_text


def extend(
    run_dir: Path, old: TrainConfig, new: TrainConfig, show: Callable[[str], None]
) -> TrainConfig | None:
    """Make a run directory that of the same run with more steps; None where it is another run.

    A kill in between loses no checkpoint that is needed; the same call goes on.

    Args:
        run_dir: Of a run, finished or not.
        old: Its configuration.
        new: What is asked for.
        show: Called with a line that says from where it goes on, and what that means.

    Raises:
        InputError: fewer steps are asked for than the run has made, or patience ended it.
        BusyError: another process trains there.
    """
    from gpt.train import only_trainer

    if old.max_steps == new.max_steps or _otherwise(old) != _otherwise(new):
        return None
    with only_trainer(run_dir):
        made = checkpoint.steps_of(run_dir)
        last = made[-1] if made else 0
        if new.max_steps < last:
            raise InputError(
                f"--steps must be at least the {last:,} that {run_dir} has made, but got "
                f"{new.max_steps}; pass another --out for a shorter run."
            )
        if new.max_steps < old.max_steps or new.warmup_steps != old.warmup_steps:
            return None
        start, message = _start(run_dir, old, new, made)
        _forget_events_after(run_dir, start)
        checkpoint.discard(run_dir, after=start)
        atomic_write_text(run_dir / "config.json", new.model_dump_json(indent=2) + "\n")
        append_event(run_dir, "note", message=message)
    show(message)
    return new


def _otherwise(config: TrainConfig) -> TrainConfig:
    """Return a configuration without what --steps changes."""
    return config.model_copy(update={"max_steps": 1, "warmup_steps": 0})


def _start(run_dir: Path, old: TrainConfig, new: TrainConfig, made: list[int]) -> tuple[int, str]:
    """Return the step to go on from, and a line about it."""
    from gpt.trainer import Counters, learning_rate_at

    last = made[-1] if made else 0
    common = steps_in_common(old, new)
    exact = [s for s in made if s <= common and checkpoint.has_optimizer(run_dir, s)]
    saved = checkpoint.load(run_dir) if old.patience else None
    ended = saved is not None and Counters(**saved.state["counters"]).out_of_patience(old)
    if ended and (last <= common or not exact):  # else it goes on from before its end
        raise InputError(
            f"--steps must be at most {old.max_steps}, since patience ended {run_dir} at step "
            f"{last:,}, but got {new.max_steps}; pass another --out and a larger --patience."
        )
    words = f"extended from {old.max_steps:,} to {new.max_steps:,} steps"
    if exact or last == 0:
        start = max(exact, default=0)
        return start, (
            f"{words}: goes on from step {start:,}, the same as a run of {new.max_steps:,} steps "
            f"from its start"
        )
    before, after = (learning_rate_at(min(last, c.max_steps) - 1, c) for c in (old, new))
    return last, (
        f"{words}: goes on from step {last:,} with the learning rate back at {after:.3g}, where it "
        f"had fallen to {before:.3g}; with schedule {old.schedule} this is no run of "
        f"{new.max_steps:,} steps from its start, which wsd and constant make exact"
    )


def steps_in_common(old: TrainConfig, new: TrainConfig) -> int:
    """Return the number of first steps that two runs make with the same loss and learning rate."""
    from gpt.trainer import learning_rate_at

    for step in range(min(old.max_steps, new.max_steps)):
        rates = {learning_rate_at(step, config) for config in (old, new)}
        if len(rates) > 1 or old.loss_options_at(step) != new.loss_options_at(step):
            return step
    return min(old.max_steps, new.max_steps)


def _forget_events_after(run_dir: Path, step: int) -> None:
    """Leave out what is measured again, since of two evaluations of a step the first counts."""
    lines, _ = read_lines(run_dir)
    kept = [
        line.decode()
        for line in lines
        if (event := parse(line)) is not None
        and event["event"] not in ("done", "stopped")
        and not (event["event"] == "evaluation" and event["step"] > step)
    ]
    atomic_write_text(run_dir / FILE, "".join(f"{line}\n" for line in kept))
