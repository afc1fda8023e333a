"""A stored trial, taken out of its study: its configuration, and the origin of that.

It is built from the database alone, so a trial whose run directory is gone is exported as well, and
it trains the trial again digit for digit. A trial of a program of the user's is TOML with its
parameters and the line that trains it again.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import optuna

from gpt.config import TrainConfig, read_config
from gpt.errors import InputError
from sweep.analysis.results import best_trial, run_dir
from sweep.storage.rdb import located_spec, stored_text
from sweep.storage.schema import study_attrs, trial_attrs
from sweep.study.format import relative, write_toml
from sweep.study.metric import PERPLEXITY, Metric, metric_of
from sweep.study.program import rendered_arguments, rendered_file, rendered_name
from sweep.study.range_ends import ends_of_trial


@dataclass(frozen=True)
class Origin:
    """Study and trial that an exported configuration comes from."""

    study: str
    trial: int
    arm: str
    outcome: str  # "complete", unless the trial was named by its number
    perplexity: float | None  # on validation, at the trial's last step
    step: int
    metric: Metric = PERPLEXITY
    range_ends: str = ""  # settings at an end of what was searched, in words

    def line(self) -> str:
        """Return the origin as one line."""
        value = self.perplexity
        reached = (
            self.outcome
            if value is None
            else f"validation {self.metric.name} {self.metric.shown(value)}"
        )
        ends = f" At an end of what was searched: {self.range_ends}." if self.range_ends else ""
        return (
            f"Study {self.study}, trial {self.trial} ({self.arm}, {self.outcome}): "
            f"{reached} after {self.step} steps.{ends}"
        )


def export(
    study: optuna.Study, arm: str | None = None, number: int | None = None
) -> tuple[TrainConfig, Origin]:
    """Return the configuration of a finished trial, and its origin.

    Args:
        study: The stored study, only read.
        arm: Take the best complete trial of this arm; None: of all arms.
        number: Take the trial of this number instead.

    Raises:
        InputError: no such arm or trial, no complete trial yet, or another program made the trial.
    """
    trial = best_trial(study, arm) if number is None else _finished_trial(study, number)
    return trial_config(study, trial), _origin(study, trial)


def _origin(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Origin:
    return Origin(
        study=study.study_name,
        trial=trial.number,
        arm=trial_attrs(trial).arm or "",
        outcome=trial_attrs(trial).outcome or "",
        perplexity=trial.value,
        step=trial.last_step or 0,
        metric=metric_of(study_attrs(study).spec),
        range_ends=ends_of_trial(study_attrs(study).spec, trial.params),
    )


def is_of_program(study: optuna.Study) -> bool:
    """Return True if a program of the user's trained the trials of a study."""
    return bool((study_attrs(study).spec or {}).get("trainer"))


def trained_trial(
    study: optuna.Study, arm: str | None = None, number: int | None = None
) -> tuple[Path, Origin]:
    """Return the run directory of a finished trial of the built-in GPT, and its origin.

    Args and errors are those of `export`; a program's trial has no model of ours.
    """
    if is_of_program(study):
        raise InputError(
            f"study {study.study_name!r} must have trained the built-in GPT to export its weights, "
            f"but a program of its own trained it; convert what that program saved."
        )
    trial = best_trial(study, arm) if number is None else _finished_trial(study, number)
    return run_dir(study, trial), _origin(study, trial)


def export_program(
    study: optuna.Study, arm: str | None = None, number: int | None = None
) -> tuple[str, Origin]:
    """Return the parameters of a program's trial as TOML, with the shell line that trains it again.

    Args and errors are those of `export`.
    """
    trial = best_trial(study, arm) if number is None else _finished_trial(study, number)
    origin, of_study = _origin(study, trial), study_attrs(study)
    spec = located_spec(study)
    program, folder = spec.trainer, run_dir(study, trial)
    assert program is not None
    out = Path(f"out-{study.study_name}-{trial.number}").absolute()
    params = {"seed": program.seed, **trial.params}
    machine = {"device": of_study.device or "cpu", "threads": trial_attrs(trial).threads or 1}
    values = {**params, **machine, "trial": trial.number, "run_dir": str(out)}
    command = rendered_arguments(program.command, values)
    name = program.template and rendered_name(program.template)
    files = {name: rendered_file(name, program.template_text or "", values)} if name else {}
    line = [
        shlex.join(["mkdir", "-p", str(out)]),
        shlex.join(["cp", str((folder / "params.json").absolute()), str(out)]),
        # not the trial's own: a {run_dir} in it would lead this run into that of the trial
        *(_writing(out / file, text) for file, text in files.items()),
        shlex.join(["cd", str(Path(program.folder).absolute())]),
        f"SQUEN_RUN_DIR={shlex.quote(str(out))} "
        f"SQUEN_PARAMS={shlex.quote(str(out / 'params.json'))} {shlex.join(command)}",
    ]
    header = f"# {origin.line()}\n# The same run again:\n# {' && '.join(line)}\n\n"
    tables = {"command": command, "folder": relative(Path(program.folder)), "params": params}
    return header + write_toml(tables | ({"files": files} if files else {})), origin


def _writing(path: Path, text: str) -> str:
    """Return a shell command, on one line, that writes a file."""
    each_on_a_line = r"%s\n"
    lines = text.removesuffix("\n").split("\n")
    return f"{shlex.join(['printf', each_on_a_line, *lines])} > {shlex.quote(str(path))}"


def trial_config(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> TrainConfig:
    """Return the configuration that a trial trained with, on its text as it lies now.

    Raises:
        InputError: another program made the trial, or this version refuses its study.
    """
    folder = run_dir(study, trial)  # or it says that there never was one
    attrs, of_study = trial_attrs(trial), study_attrs(study)
    spec = located_spec(study)
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


def _finished_trial(study: optuna.Study, number: int) -> optuna.trial.FrozenTrial:
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
