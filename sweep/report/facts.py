"""Facts of a report as plain values: method, commands to repeat it, provenance.

Add a fact by adding a pair to one of the `_..._facts`.
"""

import os
import platform
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from gpt.config import TrainConfig
from sweep.analysis.results import missing_runs
from sweep.analysis.study_reader import Best, StudyReader, run_dir_of, study_options
from sweep.storage.growth.extension import extensions
from sweep.storage.location import data_options
from sweep.study.dataset import amount, split_lines
from sweep.study.format import duration, number, relative, trials_line, write_toml
from sweep.study.toml_file import shipped_files
from sweep.verdict.confirm_results import without_stories


def facts(reader: StudyReader) -> list[tuple[str, str]]:
    """List facts to judge the result and to get it again: pairs of a name and words."""
    about = _program_facts if reader.is_program else _data_facts
    return [*_study_facts(reader), *about(reader.data), *_machine_facts(reader)]


def _study_facts(reader: StudyReader) -> list[tuple[str, str]]:
    attributes, complete = reader.attrs, reader.complete
    finished, asked = reader.progress
    ranges = (f"{name} {_range(space)}" for name, space in reader.parameters.items())
    length = "no trial is complete yet"
    if len(complete):
        steps, tokens = complete["last_step"].max(), complete["tokens"].max()
        trained = f" or {tokens:,.0f} training tokens" if tokens else ""
        length = f"{steps:,.0f} steps{trained} for a complete trial"
    return [
        (
            "Study",
            f"{reader.study.study_name}, specification {(attributes.spec_digest or '')[:12]}",
        ),
        ("Trials", f"{finished} of {asked} finished, {_seeds(reader)}"),
        ("Length", length),
        ("Searched", "; ".join(ranges)),
        ("Sampler", _sampler(reader.spec["sampler"])),
        ("Pruner", _pruner(reader.spec["pruner"])),
        *_extended(reader),
        *_missing(reader),
    ]


def _extended(reader: StudyReader) -> Iterator[tuple[str, str]]:
    for one in extensions(reader.study):
        yield "Extended", f"{', '.join(one.keys) or 'under this name'}; {one.line()} of {one.study}"


def _missing(reader: StudyReader) -> Iterator[tuple[str, str]]:
    """Yield what does not come from run directories, since they are gone."""
    if trials := missing_runs(reader.study):
        yield (
            "Missing",
            f"run directories of {trials_line(trials)}: their figures are those of the database, "
            f"their stories are left out",
        )
    if not reader.is_program and (runs := without_stories(reader.confirm_runs)):
        yield (
            "Missing",
            f"stories of {', '.join(runs)}: the verdict has no second interval, over stories",
        )


def _trained_with(reader: StudyReader, field: str) -> list[Any]:
    """Return the values that trials had of a field of TrainConfig, else the study file's."""
    if reader.is_program:
        return [reader.spec["trainer"][field]]
    common = reader.spec["train"].get(field, TrainConfig.model_fields[field].default)
    trials = reader.study.get_trials(deepcopy=False)
    return sorted({trial.params.get(field, common) for trial in trials} or {common})


def _seeds(reader: StudyReader) -> str:
    seeds = _trained_with(reader, "seed")
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
    return f"{spec['kind']}{_options(spec)} within each arm{startup}, seed {spec['seed']}"


def _options(spec: dict[str, Any]) -> str:
    given = ", ".join(f"{name} {value}" for name, value in spec.get("options", {}).items())
    return f" ({given})" if given else ""


def _pruner(spec: dict[str, Any]) -> str:
    if spec["kind"] == "none":
        return "none: every trial trains to its end"
    if spec["kind"] != "median":
        return (
            f"{spec['kind']}{_options(spec)} within each arm, after {spec['warmup_fraction']:.0%} "
            f"of the steps and {spec['startup_trials']} complete trials"
        )
    return (
        f"{spec['kind']} of the arm's trials at the same step, after {spec['warmup_fraction']:.0%} "
        f"of the steps and {spec['startup_trials']} complete trials"
    )


def _program_facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    files = f", pinned by {', '.join(data['files'])}" if data["files"] else ""
    return [("Program", f"{data['name']}{files}, fingerprint {data['fingerprint'][:12]}")]


def _data_facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    evaluated = f"of which a fixed set of {data['eval_tokens']:,} tokens is evaluated"
    return [
        ("Text", f"{data['name']} ({data['kind']}), fingerprint {data['fingerprint'][:12]}"),
        ("Training text", amount(data, "train")),
        ("Validation text", f"{amount(data, 'validation')}, {evaluated}"),
        ("Tokenizer", f"{data['tokenizer']}, {data['vocab_size']:,} tokens"),
        *(("Read as", line) for line in split_lines(data)),
    ]


def _machine_facts(reader: StudyReader) -> list[tuple[str, str]]:
    attributes = reader.attrs
    dtypes = [] if reader.is_program else [" and ".join(_trained_with(reader, "dtype"))]
    trained = f"{duration(float(reader.trials['elapsed_seconds'].sum()))} of training in all trials"
    wall = attributes.wall_seconds  # not known while the first call still runs
    libraries = ("squen-sweep", "torch", "optuna", "plotly")
    versions = ", ".join(f"{library} {version(library)}" for library in libraries)
    return [
        ("Device", ", ".join([str(attributes.device), *dtypes])),
        ("Time", f"{duration(wall)} by the clock, {trained}" if wall else trained),
        ("Written with", f"Python {platform.python_version()}, {versions}"),
    ]


def commands(
    reader: StudyReader, best: list[Best], prompt: str, seed: int
) -> list[tuple[str, str]]:
    """List commands to get this again and to go on: pairs of a comment and a command."""
    study = study_options(reader)
    name, in_file = shlex.quote(reader.study.study_name), str(reader.spec["name"])
    shipped = in_file in shipped_files()  # `run` takes the file of any other
    file = in_file if shipped else f"{in_file}.toml"
    renamed = "" if reader.study.study_name == in_file else f" --as {name}"
    searched = study.replace(f"--study {name}", f"--study {shlex.quote(file)}{renamed}", 1)
    total = reader.progress[1]
    text = "" if reader.is_program else f" {data_options(reader.study)}"
    search = [
        (
            "the search" if shipped else "the search, of its study file",
            f"squen-sweep run {searched} --trials {total}{text}",
        ),
        ("this report", f"squen-sweep report {study}"),
    ]
    if not best:
        return search
    exported = ("the best configuration", f"squen-sweep export {study} -o best.toml")
    if reader.is_program:
        return [*search, exported]
    run_dir = run_dir_of(reader, best[0].number)
    sample = f"squen-sweep sample {shlex.quote(relative(run_dir))}"
    opening = f"--prompt {shlex.quote(prompt)} --seed {seed}"
    return [
        *search,
        exported,
        ("its training", "squen-sweep train best.toml"),
        *([("its story above", f"{sample} {opening}")] if run_dir.is_dir() else []),
    ]


def provenance(reader: StudyReader) -> dict[str, str]:
    """Return hashes, versions and the machine, by which two results are compared."""
    data, attributes = reader.data, reader.attrs
    libraries = ("squen-sweep", "torch", "numpy", "optuna", "tiktoken", "plotly")
    return {
        "study file, SHA-256 of its settings": attributes.spec_digest or "",
        "program" if reader.is_program else "text and tokenizer, fingerprint": data["fingerprint"],
        "storage": reader.storage,
        "written on": f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join(
            [f"Python {platform.python_version()}"]
            + [f"{library} {version(library)}" for library in libraries]
        ),
    }


def study_file(reader: StudyReader) -> str:
    """Write the study as TOML, as it was read for its device."""
    spec = reader.spec
    if reader.is_program:  # which has none of the tables of the built-in GPT
        spec = {key: spec[key] for key in spec if key not in ("metric", "data", "train")}
        spec["trainer"] = {k: v for k, v in spec["trainer"].items() if k != "template_text"}
    return write_toml(spec)
