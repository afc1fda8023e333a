"""A program of the user's as a trainer: sweep.trainers.run_command runs it in a run directory."""

import hashlib
import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpt.errors import DataError, InputError
from gpt.events import Evaluation, Event
from gpt.system.files import atomic_write_text
from gpt.system.visible_devices import visible_devices
from sweep.study.format import relative
from sweep.study.metric import metric_of
from sweep.study.program import (
    TrainerSpec,
    rendered,
    rendered_arguments,
    rendered_file,
    rendered_name,
)
from sweep.study.spec import StudySpec
from sweep.trainers.base import Facts, RunFacts
from sweep.trainers.run_command import (
    MAX_NATS,
    MAX_STEP,
    PARAMS_FILE,
    PROGRAM_FILE,
    as_float,
    is_step,
    parse_report,
    reported,
)

SCRIPTS = (".py", ".sh")  # a file of such a name that the command begins with must be there
MAX_PINNED_BYTES = 2**20  # of a file that the command names; a larger one is data
NO_SEED = (
    "without {seed} in trainer.command no verdict can train this program again with fresh seeds"
)


class CommandTrainer:
    """Runs of a program.

    Args:
        spec: The study, with its [trainer].
    """

    module: str | None = "sweep.trainers.run_command"
    tokens: Path | None = None

    def __init__(self, spec: StudySpec) -> None:
        assert spec.trainer is not None
        self._spec = spec
        self._program: TrainerSpec = spec.trainer
        self._metric = metric_of(spec.model_dump(mode="json"))

    def settle(
        self, spec: StudySpec, stored: Mapping[str, Any] | None, devices: Sequence[str]
    ) -> StudySpec:
        """Return the study as it is: a program decides for itself."""
        return spec

    def check(self, spec: StudySpec, show: Callable[[str], None]) -> Facts:
        """Find the program.

        Raises:
            InputError: its folder, the program or its script is not there.
        """
        program, folder = self._program, Path(self._program.folder)
        if not folder.is_dir():
            raise InputError(
                f"trainer.folder must be a folder, relative to the study file, but there is no "
                f"{relative(folder)}."
            )
        first = program.command[0]
        if "/" in first and not _is_file(folder / first):
            raise InputError(f"trainer.command must name a program, but there is no {first}.")
        if "/" not in first and shutil.which(first) is None:
            raise InputError(
                f"trainer.command must name a program, but there is no {first!r} in $PATH; "
                f"write ./{first} for one in trainer.folder."
            )
        for word in program.command[1:]:
            named = word.endswith(SCRIPTS) and word[0] not in "-{" and len(word.split()) == 1
            if named and not _is_file(folder / word):
                raise InputError(
                    f"trainer.command must name files in {relative(folder)}, but there is no "
                    f"{word}."
                )
        data = {
            "kind": "program",
            "name": shlex.join(program.command[:2]),
            "fingerprint": self._fingerprint(folder),
            "files": [relative_to(folder, path) for path in self._files(folder)],
            "notice": None if self._can_be_judged else NO_SEED,
        }
        return self.recall(spec, data)

    @property
    def _can_be_judged(self) -> bool:
        arms = len(self._spec.arms)
        return arms < 2 or self._program.passes_seed(self._spec.search)

    def recall(self, spec: StudySpec, data: dict[str, Any]) -> Facts:
        """Return the facts of a study that has all its trials, from what is stored of it."""
        where = relative(Path(self._program.folder))
        return Facts(data, f"{data['name']} in {where}", data["notice"], worst=math.inf)

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Accept all: a program alone knows which can work."""

    def write(
        self, run_dir: Path, params: Mapping[str, Any], device: str, threads: int
    ) -> RunFacts:
        """Write the rendered command, the parameters as JSON, and the rendered template.

        Raises:
            DataError: the directory holds the run of other parameters.
        """
        path = run_dir / PROGRAM_FILE
        given = {"seed": self._program.seed, **params}
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))["params"]
            if before != given:
                differing = [key for key in given | before if given.get(key) != before.get(key)]
                raise DataError(
                    f"{run_dir} must be the run of trial {run_dir.name}, but "
                    f"{', '.join(differing)} differs; move that folder away and run the same "
                    f"command again."
                )
        run_dir.mkdir(parents=True, exist_ok=True)
        machine = {"device": device, "threads": threads, "trial": run_dir.name}
        values = {**given, **machine, "run_dir": str(run_dir.resolve())}
        name = self._program.template and rendered_name(self._program.template)
        if name:
            atomic_write_text(run_dir / name, rendered_file(name, self._template, values))
        atomic_write_text(run_dir / PARAMS_FILE, json.dumps(given, indent=1) + "\n")
        atomic_write_text(path, json.dumps(self._described(run_dir, values, given), indent=1))
        return RunFacts(self._spec.max_steps, 0, {"command": self._program.command, **given})

    def _described(
        self, run_dir: Path, values: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what sweep.trainers.run_command reads."""
        program = self._program
        return {
            "command": rendered_arguments(program.command, values),
            "resume": rendered_arguments(program.resume, values),
            "folder": str(Path(program.folder).resolve()),
            "environment": self._environment(run_dir, str(values["device"])),
            "metric": {
                "name": program.metric.name,
                "pattern": program.metric.pattern,
                "nats": self._metric.is_perplexity,
            },
            "max_steps": program.max_steps,
            "rendered": rendered_name(program.template) if program.template else "",
            "params": dict(given),
        }

    @property
    def _template(self) -> str:
        return self._program.template_text or ""

    def _environment(self, run_dir: Path, device: str) -> dict[str, str]:
        """Return variables for the program; one that names no device sees only its own."""
        found = {
            "SQUEN_RUN_DIR": str(run_dir.resolve()),
            "SQUEN_PARAMS": str((run_dir / PARAMS_FILE).resolve()),
            "PYTHONUNBUFFERED": "1",  # or lines would reach us when it ends
        }
        if device.startswith("cuda:") and "device" not in self._program.placeholders:
            found["CUDA_VISIBLE_DEVICES"] = visible_devices([int(device.removeprefix("cuda:"))])
        return found

    def halve_memory(self, run_dir: Path) -> int | None:
        """Return None: nobody but the program knows how."""
        return None

    def command(self, run_dir: Path, processes: int = 1) -> tuple[str, ...]:
        """Return the command that runs the program, or continues it; it starts its processes."""
        return (sys.executable, "-P", "-m", "sweep.trainers.run_command", str(run_dir.resolve()))

    def parse(self, line: bytes) -> Event | None:
        """Parse a line of events.jsonl, ours or the program's; one that lacks its word is none."""
        event = parse_report(line)
        if event is None or event["event"] != "evaluation":
            return event if event is not None and _is_whole(event) else None
        found = reported(event, self._program.metric.name)
        limit = MAX_NATS if self._metric.is_perplexity else math.inf
        if found is None or not -math.inf < found[1] < limit:
            return None  # the process that runs the program ends it for the latter
        return {**event, "step": found[0], "value": found[1]}

    def evaluation(self, event: Event) -> Evaluation:
        """Return what an `evaluation` event says.

        Of a metric in nats per token, perplexity and cross-entropy; of any other, `perplexity` is
        the value itself, by which trials are ranked.
        """
        value = float(event["value"])
        nats = self._metric.is_perplexity
        known = {
            "perplexity": _exp(value) if nats else value,
            "cross_entropy": value if nats else math.nan,
            "elapsed_seconds": _figure(event, "seconds"),
            "train_loss": _figure(event, "train_loss"),
            "learning_rate": _figure(event, "learning_rate"),
        }
        unknown = {field.name: math.nan for field in fields(Evaluation)}
        tokens = _figure(event, "tokens", 0.0)
        integers = {"tokens": int(min(max(tokens, 0.0), MAX_STEP)), "peak_memory_bytes": 0}
        return Evaluation(**{**unknown, **known, **integers, "step": int(event["step"])})  # type: ignore[arg-type]

    def tidy(self, run_dir: Path) -> None:
        """Leave all that a program wrote."""

    def _files(self, folder: Path) -> Iterator[Path]:
        """Yield the files that the command names, without an interpreter that the system has."""
        first, *others = self._program.command
        for word in others if Path(first).is_absolute() else [first, *others]:
            path = folder / word
            named = rendered(word, {}) == word and _is_file(path)
            if named and path.stat().st_size <= MAX_PINNED_BYTES:
                yield path

    def _fingerprint(self, folder: Path) -> str:
        """Return the SHA-256 of the files that the command names."""
        digest = hashlib.sha256()
        for path in self._files(folder):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _is_file(path: Path) -> bool:
    """Return True for a file; words of a command may be longer than any name, as of `sh -c`."""
    try:
        return path.is_file()
    except OSError:
        return False


def relative_to(folder: Path, path: Path) -> str:
    """Return a path below a folder as it is written there."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _is_whole(event: Event) -> bool:
    """Return True unless a program's line only shares its name with one of ours."""
    step = as_float(event.get("step"))
    match event["event"]:
        case "note":
            return isinstance(event.get("message"), str)
        case "done" | "stopped":
            return step is not None and is_step(step)
        case "error":
            words = (event.get("outcome"), event.get("message"))
            return step is not None and is_step(step) and all(isinstance(w, str) for w in words)
    return True


def _figure(event: Event, name: str, otherwise: float = math.nan) -> float:
    value = as_float(event.get(name))
    return value if value is not None and math.isfinite(value) else otherwise


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < MAX_NATS else math.inf
