"""A trial's configuration as a file: TOML or JSON for `squen-sweep train`, Python for nanoGPT.

It is built from the database alone, so a trial whose run directory is gone is exported as well, and
it trains the trial again digit for digit.
Add a format by adding one function and one EXPORTERS entry.
"""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gpt.config import TrainConfig, read_config
from gpt.errors import InputError
from sweep.storage.rdb import stored_text
from sweep.storage.schema import study_attrs, trial_attrs
from sweep.study.spec import stored_spec

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Origin:
    """Study and trial that an exported configuration comes from."""

    study: str
    trial: int
    arm: str
    outcome: str  # "complete", unless the trial was named by its number
    perplexity: float | None  # on validation, at the trial's last step
    step: int

    def line(self) -> str:
        """Return the origin as one line, with every digit of the perplexity."""
        reached = f"validation perplexity {self.perplexity!r}" if self.perplexity else self.outcome
        return (
            f"Study {self.study}, trial {self.trial} ({self.arm}, {self.outcome}): "
            f"{reached} after {self.step} steps."
        )


def export(
    study: "optuna.Study", arm: str | None = None, number: int | None = None
) -> tuple[TrainConfig, Origin]:
    """Return the configuration of a finished trial, and its origin.

    Args:
        study: The stored study, only read.
        arm: Take the best complete trial of this arm; None: of all arms.
        number: Take the trial of this number instead.

    Raises:
        InputError: no such arm or trial, no complete trial yet, or another program made the trial.
    """
    from sweep.analysis.results import best_trial

    trial = best_trial(study, arm) if number is None else _finished_trial(study, number)
    config = trial_config(study, trial)
    origin = Origin(
        study=study.study_name,
        trial=trial.number,
        arm=trial_attrs(trial).arm or "",
        outcome=trial_attrs(trial).outcome or "",
        perplexity=trial.value,
        step=trial.last_step or 0,
    )
    return config, origin


def trial_config(study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> TrainConfig:
    """Return the configuration that a trial trained with, on its text as it lies now.

    Raises:
        InputError: another program made the trial, or this version refuses its study.
    """
    from sweep.analysis.results import run_dir

    folder = run_dir(study, trial)  # or it says that there never was one
    attrs, of_study = trial_attrs(trial), study_attrs(study)
    spec = stored_spec(of_study.spec or {}, study.study_name)
    threads = attrs.threads or _threads_of(folder)
    text = stored_text(study, spec)
    config = spec.train_config(trial.params, text, of_study.device or "cpu", threads)
    if attrs.micro_batch is None:
        return config
    smaller = {
        "batch_size": attrs.micro_batch,
        "gradient_accumulation_steps": (
            config.gradient_accumulation_steps * config.batch_size // attrs.micro_batch
        ),
    }
    return config.model_copy(update=smaller)


def _threads_of(run_dir: Path) -> int:
    """Return the threads of a trial of version 0.1.0, which stored them in its directory alone."""
    try:
        return read_config(run_dir / "config.json").threads
    except InputError:
        return 1


def export_format(path: Path | None, name: str | None) -> str:
    """Return the name of a format: the given one, else the one of the suffix, else "toml".

    Raises:
        InputError: no format has this name or suffix, or the suffix is another format's.
    """
    known = ", ".join(EXPORTERS)
    if name is not None:
        if name not in EXPORTERS:
            raise InputError(f"--format must be one of {known}, but got {name!r}.")
        if path is not None and SUFFIXES.get(path.suffix, name) != name:
            raise InputError(
                f"{path} must end in {suffix_of(name)} for --format {name}, but {path.suffix} "
                f"means {SUFFIXES[path.suffix]}; leave one of the two out."
            )
        return name
    if path is None:
        return "toml"
    if path.suffix not in SUFFIXES:
        suffixes = ", ".join(SUFFIXES)
        raise InputError(f"{path} must end in one of {suffixes}, or name a --format: {known}.")
    return SUFFIXES[path.suffix]


def suffix_of(name: str) -> str:
    """Return the suffix of a format's files."""
    return next(suffix for suffix, known in SUFFIXES.items() if known == name)


def is_export(path: Path) -> bool:
    """Return True if a file is one that `export` wrote, or empty: replacing it loses nothing.

    A run directory's config.json is a trial's own and none of ours to replace.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if not text or re.match(r"# Study \S+, trial \d+ \(", text):
        return True
    try:
        TrainConfig.model_validate_json(text)
    except ValidationError:
        return False
    return not (path.parent / "events.jsonl").exists()


def to_toml(config: TrainConfig, origin: Origin, file: str) -> str:
    """Return TOML that `squen-sweep train` runs as it is; keys without a value are left out."""
    import tomli_w

    train = f"squen-sweep train {shlex.quote(file)}"
    header = (
        f"# {origin.line()}\n"
        f"# The same run again:  {train}\n"
        f"# A longer one:        {train} --steps {4 * config.max_steps}\n\n"
    )
    return header + tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def to_json(config: TrainConfig, origin: Origin, file: str) -> str:
    """Return JSON that `squen-sweep train` runs as it is: the text of a run's config.json."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def to_nanogpt(config: TrainConfig, origin: Origin, file: str) -> str:
    """Return assignments that nanoGPT's configurator executes: python train.py FILE.

    Source:
        karpathy/nanoGPT, train.py and configurator.py: the names, and the schedule behind them.
    """
    from gpt.data.dataset import prepare

    folder = prepare(config.data).folder  # train.bin, val.bin and meta.pkl as nanoGPT's prepare.py
    tokens_per_batch = config.batch_size * config.block_size
    values = {
        "out_dir": f"out-{origin.study}-{origin.trial}",
        "dataset": str(folder.resolve()),
        **{name: getattr(config, name) for name in NANOGPT_NAMES},
        "min_lr": config.learning_rate * config.min_lr_ratio,
        "warmup_iters": config.warmup_steps,
        "max_iters": config.max_steps,
        "lr_decay_iters": max(config.max_steps, config.warmup_steps + 1),
        "eval_iters": -(-config.eval_tokens // tokens_per_batch),
        "log_interval": min(10, config.eval_interval),
        "always_save_checkpoint": False,
    }
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join([*_nanogpt_header(config, origin, file), "", *lines]) + "\n"


def _nanogpt_header(config: TrainConfig, origin: Origin, file: str) -> list[str]:
    """Return comments on what nanoGPT does otherwise than the trial."""
    lines = [
        f"# {origin.line()}",
        f"# In a clone of nanoGPT: python train.py {shlex.quote(file)}",
        "# nanoGPT trains with cross-entropy only and from a seed of its own, and it estimates the",
        "# validation loss on random windows, not on full stories: its figures differ from ours.",
    ]
    if config.loss != "cross_entropy":
        lines.append(
            f"# This trial was trained with {config.loss}: nanoGPT will not use that loss."
        )
    if config.init_std != NANOGPT_INIT_STD:
        lines.append(
            f"# This trial started from weights of std {config.init_std:g}: "
            f"nanoGPT starts from {NANOGPT_INIT_STD:g}."
        )
    return lines


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out keys without a value: TOML has no null, and a missing key means off."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


def _finished_trial(study: "optuna.Study", number: int) -> "optuna.trial.FrozenTrial":
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise InputError(
            f"--trial must be one of the {len(trials)} trials of study {study.study_name!r}, "
            f"counted from 0, but got {number}."
        )
    trial = trials[number]
    if not trial.state.is_finished():
        raise InputError(
            f"trial {number} of study {study.study_name!r} must be finished, "
            f"but it is {trial.state.name.lower()}; wait for it, or name another one."
        )
    return trial


NANOGPT_INIT_STD = 0.02  # in its model.py

# The names that nanoGPT's train.py and TrainConfig share, with the same meaning.
NANOGPT_NAMES = (
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "dropout",
    "bias",
    "batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "beta1",
    "beta2",
    "grad_clip",
    "eval_interval",
    "device",
    "dtype",
    "compile",
)

EXPORTERS: dict[str, Callable[[TrainConfig, Origin, str], str]] = {
    "toml": to_toml,
    "json": to_json,
    "nanogpt": to_nanogpt,
}
# A file's suffix, and the format that it means.
SUFFIXES = {".toml": "toml", ".json": "json", ".py": "nanogpt"}
