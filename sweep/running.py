"""A trial in its slot: what the driver knows of it, and the run directory that it trains in."""

from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import Trial

from gpt.config import DataConfig, TrainConfig, read_config
from gpt.events import Event
from sweep.executors import Slot, TrialProcess
from sweep.spec import StudySpec


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


def configure(
    trial: Trial, run_dir: Path, slot: Slot, spec: StudySpec, data: DataConfig
) -> TrainConfig:
    """The trial's config.json: written once, then the truth however often it is continued."""
    path = run_dir / "config.json"
    if path.exists():
        config = read_config(path)
        if config.device == slot.device:
            return config
        config = config.model_copy(update={"device": slot.device})  # of the same kind
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        config = spec.train_config(trial.params, data, slot.device, slot.threads)
        trial.set_user_attr("run_dir", str(run_dir.resolve()))
        trial.set_user_attr("n_params", _n_params(config))
    write_config(run_dir, config)
    return config


def write_config(run_dir: Path, config: TrainConfig) -> None:
    """Replace config.json, whole or not at all."""
    temporary = run_dir / "config.json.partial"
    temporary.write_text(config.model_dump_json(indent=1))
    temporary.replace(run_dir / "config.json")


def _n_params(config: TrainConfig) -> int:
    import torch

    from gpt.model import GPT

    with torch.device("meta"):  # counts without memory
        return GPT(config).num_params()
