"""Numbers, durations, settings and curves as short text for people."""

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

SHORT_NAMES = {"learning_rate": "lr"}  # the field name that everybody shortens


def is_terminal() -> bool:
    """Return True if stdout is a terminal that can redraw lines."""
    from rich.console import Console

    console = Console()
    return sys.stdout.isatty() and not console.is_dumb_terminal


class Show(Protocol):
    """Callback that shows what is under way, and the share that is done if it is known."""

    def __call__(self, what: str, done: float | None = None) -> None:
        """Show a message; `done` is a share in [0, 1]."""


def unseen(what: str, done: float | None = None) -> None:
    """Show nothing: a Show for quiet commands."""


def json_values(value: Any) -> Any:
    """Convert to values that JSON has: no numpy, no tuples; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): json_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_toml(values: dict[str, Any]) -> str:
    """Write TOML, without the keys that have no value: it has no null."""
    import tomli_w

    return tomli_w.dumps(_without_none(values))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_none(each) for each in value]
    return value


def share_of(message: str) -> float | None:
    """Return the share at the end of a message: "tokenising: 3 of 4 stories (75%)" -> 0.75."""
    found = re.search(r"\((\d+)%\)$", message)
    return int(found[1]) / 100 if found else None


def number(value: Any) -> str:
    """Return a value in few characters: 0.0012 -> 1.20e-03, 0.1 -> 0.1, 4 -> 4."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.2e}" if 0 < abs(value) < 0.01 or abs(value) >= 1e5 else f"{value:.4g}"


def column_format(values: Iterable[Any], *, log: bool = False) -> Callable[[Any], str]:
    """Return the one way to write all numbers of a column: equally many decimals or 1.20e-03.

    Args:
        values: The column; what is no float is written as it is.
        log: It was searched on a logarithmic scale: its smallest value keeps three digits, too.
    """
    sizes = [abs(v) for v in values if type(v) is float and math.isfinite(v) and v]
    smallest = min(sizes, default=1.0) if log else max(sizes, default=1.0)
    if smallest < (0.01 if log else 0.001) or max(sizes, default=1.0) >= 1e5:
        return lambda value: f"{value:.2e}" if isinstance(value, float) and value else str(value)
    decimals = max(0, 2 - math.floor(math.log10(smallest)))
    return lambda value: f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


def on_log_scale(space: Any) -> bool:
    """Return True if an optuna distribution is logarithmic, or its choices span a factor of 100."""
    choices = [one for one in getattr(space, "choices", ()) if type(one) is float and one > 0]
    return bool(getattr(space, "log", choices and max(choices) >= 100 * min(choices)))


def change(ratio: float) -> str:
    """Return a ratio as a change in percent, with its sign: 1.131 -> +13.1%, 1.0 -> +0.0%."""
    return f"{round(100 * (ratio - 1), 1) + 0.0:+.1f}%"  # a zero has no minus


def perplexity(value: float | None) -> str:
    """Return a perplexity in few characters, with two decimals below 1000; "-" for None."""
    if value is None:
        return "-"
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value < 1e9 else f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """Return seconds as m:ss or h:mm:ss; "-" for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def relative(path: Path) -> str:
    """Write a path as one types it in the current folder, also after the project has moved."""
    return os.path.relpath(path)


def settings(params: dict[str, Any], arm: str) -> dict[str, str]:
    """Return parameters as short names and values, without the one that is the arm itself."""
    return {
        SHORT_NAMES.get(name, name): number(value) for name, value in params.items() if value != arm
    }


def best_line(
    best: dict[str, tuple[int, float]], shown: Callable[[float], str] = perplexity
) -> str:
    """Return the best per arm: "cross_entropy 53.70 (trial 7), squentropy 63.10 (trial 9)"."""
    found = (f"{arm} {shown(value)} (trial {trial})" for arm, (trial, value) in best.items())
    return ", ".join(found)


MOST_NUMBERS = 8  # of trials in a line


def trials_line(numbers: Sequence[int]) -> str:
    """Return a list of trials: "trial 3", "trials 0, 3", "trials 0, 1, ... and 12 more"."""
    listed = ", ".join(map(str, numbers[:MOST_NUMBERS]))
    more = len(numbers) - MOST_NUMBERS
    return f"trial{'s' * (len(numbers) > 1)} {listed}" + (f" and {more} more" if more > 0 else "")


BAR_WIDTH = 16  # characters
BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(curve: Sequence[float], fraction: float, width: int = BAR_WIDTH) -> str:
    """Return a curve in `width` characters, the first `fraction` of them drawn: ▇▄▂▁▁······

    Heights are logarithmic, from the curve's lowest to its highest value; values that are not
    finite are as high as the highest.
    """
    drawn = min(width, max(1, round(fraction * width))) if curve else 0
    logs = [math.log(value) for value in curve if 0 < value < math.inf]
    low, extent = min(logs, default=0.0), (max(logs, default=0.0) - min(logs, default=0.0)) or 1.0
    marks = ""
    for index in range(drawn):
        value = curve[(index + 1) * len(curve) // drawn - 1] if drawn <= len(curve) else None
        value = curve[index * len(curve) // drawn] if value is None else value
        height = (math.log(value) - low) / extent if 0 < value < math.inf else 1.0
        marks += BLOCKS[round(height * (len(BLOCKS) - 1))]
    return marks + "·" * (width - drawn)
