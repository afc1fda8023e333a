"""What a report says, as plain values: the answer, how it was obtained, how to repeat it.

Knows neither HTML nor plots. Add a fact by adding a pair to one of the `_..._facts`.
"""

import os
import platform
import shlex
from importlib.metadata import version
from typing import Any

import tomli_w
from optuna.distributions import BaseDistribution, CategoricalDistribution

from gpt.config import TrainConfig
from sweep.analysis.study_reader import Best, Stored, run_dir_of, study_options
from sweep.format import duration, number

# How it was obtained


def facts(stored: Stored) -> list[tuple[str, str]]:
    """What a reader needs to judge the result and to get it again: pairs of a name and words."""
    return [*_study_facts(stored), *_data_facts(stored.data), *_machine_facts(stored)]


def _study_facts(stored: Stored) -> list[tuple[str, str]]:
    attributes, complete = stored.study.user_attrs, stored.complete
    finished, asked = stored.progress
    ranges = (f"{name} {_range(space)}" for name, space in stored.parameters.items())
    length = "no trial is complete yet"
    if len(complete):
        steps, tokens = complete["last_step"].max(), complete["tokens"].max()
        length = f"{steps:,.0f} steps or {tokens:,.0f} training tokens for a complete trial"
    return [
        ("Study", f"{stored.study.study_name}, specification {attributes['spec_digest'][:12]}"),
        ("Trials", f"{finished} of {asked} finished, {_seeds(stored)}"),
        ("Length", length),
        ("Searched", "; ".join(ranges)),
        ("Sampler", _sampler(stored.spec["sampler"])),
        ("Pruner", _pruner(stored.spec["pruner"])),
    ]


def _trained_with(stored: Stored, field: str) -> list[Any]:
    """Return the values that trials had of a field of TrainConfig, else the study file's."""
    common = stored.spec["train"].get(field, TrainConfig.model_fields[field].default)
    trials = stored.study.get_trials(deepcopy=False)
    return sorted({trial.params.get(field, common) for trial in trials} or {common})


def _seeds(stored: Stored) -> str:
    seeds = _trained_with(stored, "seed")
    if len(seeds) == 1:
        return f"all with seed {seeds[0]}"
    return (
        f"with seeds {', '.join(map(str, seeds))}: the order of trials is partly luck, "
        f"which only a verdict takes out"
    )


def _range(space: BaseDistribution) -> str:
    if isinstance(space, CategoricalDistribution):
        return " or ".join(map(str, space.choices))
    ends: Any = space  # float and int distributions alike
    return f"{number(ends.low)} to {number(ends.high)}{', logarithmic' if ends.log else ''}"


def _sampler(spec: dict[str, Any]) -> str:
    startup = f" after {spec['startup_trials']} Sobol points" if spec["startup_trials"] else ""
    return f"{spec['kind']} within each arm{startup}, seed {spec['seed']}"


def _pruner(spec: dict[str, Any]) -> str:
    if spec["kind"] == "none":
        return "none: every trial trains to its end"
    return (
        f"{spec['kind']} of the arm's trials at the same step, after {spec['warmup_fraction']:.0%} "
        f"of the steps and {spec['startup_trials']} complete trials"
    )


def _data_facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    evaluated = f"of which a fixed set of {data['eval_tokens']:,} tokens is evaluated"
    return [
        ("Text", f"{data['name']} ({data['kind']}), fingerprint {data['fingerprint'][:12]}"),
        ("Training text", _amount(data, "train")),
        ("Validation text", f"{_amount(data, 'validation')}, {evaluated}"),
        ("Tokenizer", f"{data['tokenizer']}, {data['vocab_size']:,} tokens"),
    ]


def _amount(data: dict[str, Any], split: str) -> str:
    return f"{data[f'{split}_stories']:,} stories, {data[f'{split}_tokens']:,} tokens"


def _machine_facts(stored: Stored) -> list[tuple[str, str]]:
    attributes = stored.study.user_attrs
    trained = f"{duration(float(stored.trials['elapsed_seconds'].sum()))} of training in all trials"
    wall = attributes.get("wall_seconds")  # not known while the first call still runs
    libraries = ("squen-sweep", "torch", "optuna", "plotly")
    versions = ", ".join(f"{library} {version(library)}" for library in libraries)
    return [
        ("Device", f"{attributes['device']}, {' and '.join(_trained_with(stored, 'dtype'))}"),
        ("Time", f"{duration(wall)} by the clock, {trained}" if wall else trained),
        ("Written with", f"Python {platform.python_version()}, {versions}"),
    ]


def commands(stored: Stored, best: list[Best], prompt: str, seed: int) -> list[tuple[str, str]]:
    """What to type to get this again and to go on: pairs of a comment and a command."""
    data = stored.data
    source = data["name"] if data["kind"] == "files" else data["kind"]
    study = study_options(stored)
    total = stored.progress[1]
    search = [
        ("the search", f"squen-sweep run {study} --trials {total} --data {shlex.quote(source)}"),
        ("this report", f"squen-sweep report {study}"),
    ]
    if not best:
        return search
    run_dir = run_dir_of(stored, best[0].number)
    opening = f"--prompt {shlex.quote(prompt)} --seed {seed}"
    return [
        *search,
        ("the best configuration", f"squen-sweep export {study} -o best.toml"),
        ("its training", "squen-sweep train best.toml"),
        ("its story above", f"squen-sweep sample {shlex.quote(str(run_dir))} {opening}"),
    ]


def provenance(stored: Stored) -> dict[str, str]:
    """Whole hashes, versions and the study file as it was read: what to compare two results by."""
    data, attributes = stored.data, stored.study.user_attrs
    libraries = ("squen-sweep", "torch", "numpy", "optuna", "tiktoken", "plotly")
    return {
        "study file, SHA-256 of what it says": attributes["spec_digest"],
        "text and tokenizer, fingerprint": data["fingerprint"],
        "storage": stored.url,
        "written on": f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join(
            [f"Python {platform.python_version()}"]
            + [f"{library} {version(library)}" for library in libraries]
        ),
    }


def study_file(stored: Stored) -> str:
    """The study as TOML, as it was read for its device."""
    return tomli_w.dumps(_without_none(stored.spec))


def _without_none(value: Any) -> Any:
    """TOML has no null: a key without a value is left out."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_none(each) for each in value]
    return value
