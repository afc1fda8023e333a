"""A program of the user's as a study file declares it: the table [trainer].

command = ["python", "train.py", "--lr={learning_rate}"]   or text, split as a shell does
folder = "../nanoGPT"            where it runs, relative to the study file
resume = ["--init_from=resume"]  added where an earlier attempt left files in the run directory
template = "config.yaml.in"      a file to render into the run directory, without ".in"
max_steps, seed                  steps of a complete trial; {seed} of the search
[trainer.metric]                 what it reports, see MetricSpec

Placeholders are {name} of a searched parameter and those of BUILT_IN; {{name}} is {name} itself.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from sweep.study.external.pattern import check_pattern
from sweep.study.search_space import Spec
from sweep.study.suggest import nearest

BUILT_IN = ("run_dir", "seed", "trial", "device", "threads")
COLUMNS = ("number", "state", "outcome", "arm", "origin", "seconds", "step", "tokens", "reason")
OUR_FILES = ("program.json", "params.json", "events.jsonl", "log.txt", "log.1.txt")
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")


def split_text(command: Any) -> Any:
    """Split text into words as a shell does; leave a list of words as it is.

    Raises:
        ValueError: a quote is not closed.
    """
    if not isinstance(command, str):
        return command
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ValueError(f"must be as in a shell, but {error}: {command!r}") from None


class MetricSpec(Spec):
    """The figure that a program reports, and by which its trials are ranked."""

    name: str
    pattern: str | None = None  # of a line that it prints; None: it appends to events.jsonl
    direction: Literal["minimize", "maximize"] = "minimize"
    unit: str | None = None  # "nats" (per token) are shown as perplexity; so is None if minimised

    @field_validator("name")
    @classmethod
    def _name_is_short(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z][\w ./-]{0,39}", name):
            raise ValueError(
                f"must be 1 to 40 letters, digits and ' _./-', the first a letter, but got {name!r}"
            )
        return name

    @field_validator("pattern")
    @classmethod
    def _pattern_has_its_groups(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        check_pattern(pattern)
        return pattern


class TrainerSpec(Spec):
    """A program that trains a trial."""

    command: list[str]
    folder: str = "."
    resume: list[str] = Field(default_factory=list)
    template: str | None = None
    template_text: str | None = None  # of that file, read with the study file
    max_steps: int | None = Field(default=None, ge=1)  # None: that of the first complete trials
    seed: int = Field(default=1337, ge=0, le=10**12)
    metric: MetricSpec

    @field_validator("command", "resume", mode="before")
    @classmethod
    def _split_text(cls, command: Any) -> Any:
        return split_text(command)

    @field_validator("command")
    @classmethod
    def _command_names_a_program(cls, command: list[str]) -> list[str]:
        if not command or not command[0]:
            raise ValueError("must name a program, but got none")
        return command

    @property
    def texts(self) -> list[str]:
        """Texts in which placeholders stand."""
        return [*self.command, *self.resume, self.template_text or ""]

    @property
    def placeholders(self) -> set[str]:
        """Names of all placeholders."""
        return {name for text in self.texts for name in names_in(text)}

    def passes_seed(self, searched: Iterable[str]) -> bool:
        """Return True if the program is given {seed}, also as one that reads $SQUEN_PARAMS alone.

        Args:
            searched: Names of the searched parameters.
        """
        return "seed" in self.placeholders or not self.placeholders & set(searched)

    @property
    def meaning(self) -> dict[str, Any]:
        """The values that results depend on; the folder may move."""
        return self.model_dump(mode="json", exclude={"folder", "template"})


def names_in(text: str) -> Iterator[str]:
    """Yield the names of the placeholders of a text."""
    for match in PLACEHOLDER.finditer(text):
        if match[2]:
            yield match[2]


def rendered(text: str, values: Mapping[str, Any]) -> str | None:
    """Return an argument with its placeholders replaced.

    Returns:
        None where it has one without a value: a parameter that this trial does not have.
    """
    if any(name not in values for name in names_in(text)):
        return None
    return PLACEHOLDER.sub(lambda match: _replaced(match, values, str), text)


def rendered_arguments(arguments: Iterable[str], values: Mapping[str, Any]) -> list[str]:
    """Return arguments of a program, without those of parameters that this trial does not have."""
    return [word for one in arguments if (word := rendered(one, values)) is not None]


def rendered_file(name: str, text: str, values: Mapping[str, Any]) -> str:
    """Return a file with its placeholders replaced, and true and false as its language has them.

    A line of a parameter that this trial does not have is left out.

    Args:
        name: Of the file: .py is Python, any other is taken as YAML, TOML and JSON are.
        text: Of its template.
        values: Of the placeholders.
    """
    shown = str if name.endswith(".py") else _as_data
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if all(name in values for name in names_in(line))]
    return PLACEHOLDER.sub(lambda match: _replaced(match, values, shown), "".join(kept))


def _replaced(match: re.Match[str], values: Mapping[str, Any], shown: Any) -> str:
    return f"{{{match[1]}}}" if match[1] else str(shown(values[match[2]]))


def _as_data(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    mantissa, e, exponent = text.partition("e")
    bare = isinstance(value, float) and e and "." not in mantissa
    return f"{mantissa}.0e{exponent}" if bare else text  # YAML reads 1e-05 as text


def rendered_name(template: str) -> str:
    """Return the name of a template's file in a run directory: config.yaml of config.yaml.in."""
    return Path(template).name.removesuffix(".in")


def check_program(trainer: TrainerSpec, searched: Mapping[str, Any]) -> None:
    """Raise ValueError for a placeholder that does not exist, or a parameter that is not used."""
    for name in searched:
        if name in BUILT_IN or not re.fullmatch(r"\w+", name):
            raise ValueError(
                f"search.{name}: must be letters, digits and '_', "
                f"and none of {', '.join(BUILT_IN)}, which are ours"
            )
    taken = (*searched, *COLUMNS)
    if trainer.metric.name in taken:
        raise ValueError(
            f"trainer.metric.name: must be none of {', '.join(taken)}, which tables of trials "
            f"have, but got {trainer.metric.name!r}"
        )
    known = [*searched, *BUILT_IN]
    for key, texts in (
        ("command", trainer.command),
        ("resume", trainer.resume),
        ("template", [trainer.template_text or ""]),
    ):
        for name in (name for text in texts for name in names_in(text)):
            if name not in known:
                raise ValueError(
                    f"trainer.{key}: a placeholder must be of {', '.join(known)}, but got "
                    f"{{{name}}}{nearest(name, known)}; {{{{{name}}}}} is that text itself"
                )
    if trainer.template and rendered_name(trainer.template) in OUR_FILES:
        raise ValueError(
            f"trainer.template: must not become one of {', '.join(OUR_FILES)}, which are ours, "
            f"but got {trainer.template!r}"
        )
    used = trainer.placeholders & set(searched)
    for name in searched:
        if used and name not in used:
            raise ValueError(
                f"search.{name}: must stand in trainer.command or the template as {{{name}}}, "
                f"as {', '.join(sorted(used))} does, or it would change nothing"
            )
