"""A trial in its slot: what the driver knows of it, and the run directory that it trains in."""

from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import Trial

from gpt.config import DataConfig, TrainConfig, read_config
from gpt.errors import DataError
from gpt.events import Event
from gpt.model import num_params
from gpt.system.files import atomic_write_text
from sweep.backends.local import Slot, TrialProcess
from sweep.study.spec import StudySpec
from sweep.tuner.clock import awake_seconds

# Of a trial that was started: where its text lies, and the micro-batch that memory sufficed for.
MAY_DIFFER = ("data", "device", "threads", "batch_size", "gradient_accumulation_steps")


@dataclass
class Running:
    """A trial in its slot."""

    trial: Trial
    arm: str
    run_dir: Path
    config: TrainConfig
    slot: Slot
    process: TrialProcess
    offset: int = 0  # bytes of events.jsonl that have been read
    last: tuple[int, float] | None = None  # step and perplexity of the last evaluation
    end: Event | None = None  # the event with which the process said goodbye
    pruned: bool = False
    crashes: list[int] = field(default_factory=list)  # the last step known at each crash
    told: int = 0  # signals that have been passed on
    started: float = field(default_factory=awake_seconds)  # awake seconds, as are the next two
    heard: float = field(default_factory=awake_seconds)  # when the last event was read
    asked: float | None = None  # when it was asked to stop
    overdue: str | None = None  # which limit of a trial it is over
    hung: str | None = None  # how long it had said nothing when it was killed
    halved: bool = False  # its micro-batch, after it ran out of memory

    def stop(self) -> None:
        """Ask its process for a checkpoint and an end."""
        if self.asked is None:
            self.asked = awake_seconds()
        self.process.stop()

    def start_again(self) -> None:
        """A new process for it, in place of one that has ended."""
        self.end = self.asked = self.hung = None
        self.told = 0
        self.heard = awake_seconds()
        self.process = TrialProcess.start(self.run_dir, self.slot)


def configure(
    trial: Trial, run_dir: Path, slot: Slot, spec: StudySpec, data: DataConfig
) -> TrainConfig:
    """The trial's config.json: written once, then the truth however often it is continued."""
    path = run_dir / "config.json"
    if path.exists():
        config = read_config(path)
        _refuse_another_trials(config, trial, run_dir, spec, data)
        if config.device == slot.device:
            return config
        config = config.model_copy(update={"device": slot.device})  # of the same kind
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        config = spec.train_config(trial.params, data, slot.device, slot.threads)
    write_config(run_dir, config)
    return config


def describe(trial: Trial, run_dir: Path, config: TrainConfig) -> None:
    """Store where the trial trains and how large it is, unless that was done."""
    if "n_params" not in trial.user_attrs:
        trial.set_user_attr("run_dir", str(run_dir.resolve()))
        trial.set_user_attr("n_params", num_params(config))


def _refuse_another_trials(
    config: TrainConfig, trial: Trial, run_dir: Path, spec: StudySpec, data: DataConfig
) -> None:
    """A database that was put back from a copy must not take over the runs of later trials."""
    expected = spec.train_config(trial.params, data, config.device, config.threads)
    differing = [
        name
        for name in TrainConfig.model_fields
        if name not in MAY_DIFFER and getattr(config, name) != getattr(expected, name)
    ]
    if differing:
        raise DataError(
            f"{run_dir} must be the run of trial {trial.number}, but {', '.join(differing)} "
            f"differs; move that folder away and run the same command again."
        )


def write_config(run_dir: Path, config: TrainConfig) -> None:
    """Replace config.json, whole or not at all."""
    atomic_write_text(run_dir / "config.json", config.model_dump_json(indent=1))


def with_half_the_micro_batch(config: TrainConfig) -> TrainConfig | None:
    """The same run in half the memory: twice as many forward passes in a step, each half as large.

    The effective batch is the same. None where the micro-batch cannot be halved.
    """
    if config.batch_size % 2:
        return None
    return config.model_copy(
        update={
            "batch_size": config.batch_size // 2,
            "gradient_accumulation_steps": 2 * config.gradient_accumulation_steps,
        }
    )
