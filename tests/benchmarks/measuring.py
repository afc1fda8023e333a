"""What benchmarks share: alternating repeats, medians with their spread, the file of results."""

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweep.backends.local import available_cores

HERE = Path(__file__).parent
REPEATS = 5


def alternate(
    things: Mapping[str, Callable[[], float]], repeats: int = REPEATS, digits: int = 3
) -> dict[str, list[float]]:
    """The figures of each thing, measured in turns, so that a slow minute hits all of them."""
    values: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(repeats):
        for name, measure in things.items():
            values[name].append(round(measure(), digits))
            print(name, values[name][-1], flush=True)
    return values


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, and the smallest and largest value."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(of: list[float], to: list[float]) -> dict[str, float]:
    """`spread` of the ratios of repeats that followed one another."""
    return {
        name: round(value, 4)
        for name, value in spread([a / b for a, b in zip(of, to, strict=True)]).items()
    }


def machine() -> dict[str, Any]:
    """Where and with what a measurement was made."""
    import torch

    return {
        "cores": available_cores(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "optuna", "numpy")},
    }


def write(name: str, figures: Mapping[str, Any], options: str = "") -> None:
    """Write tests/benchmarks/<name>.json: the command, the machine, the figures; print the last."""
    command = f"python -m tests.benchmarks.{name} {options}".strip()
    result = {"command": command, "machine": machine(), **figures}
    (HERE / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def _processor() -> str:
    """Its name, where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def succeed(command: list[str], **options: Any) -> str:
    """What a command prints; its error output goes to ours."""
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options)
    return str(result.stdout)


PYTHON = sys.executable
