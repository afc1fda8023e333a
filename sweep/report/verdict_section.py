"""The verdict's part of a report, as plain values; verdict.html.jinja lays it out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.format import duration, perplexity
from sweep.verdict.original_study import card
from sweep.verdict.record import Record

DASH = "–"


@dataclass(frozen=True)
class Rows:
    """A small table."""

    caption: str
    columns: list[str]
    rows: list[list[str]]

    @property
    def numeric(self) -> list[bool]:
        """Of each column whether it holds numbers alone."""
        return [all(map(_is_number, cells)) for cells in zip(*self.rows, strict=True)]


def _is_number(cell: str) -> bool:
    return cell == DASH or cell[-1:].isdigit() or cell.endswith("%")


@dataclass(frozen=True)
class Section:
    """What the page shows of a verdict."""

    tables: list[Rows]
    card: list[tuple[str, str]]  # facts of the original study
    placed: list[str]  # where its settings fall here


def make_section(record: Record) -> Section:
    """Everything that a report says of a verdict besides its answer and its figures."""
    return Section(
        tables=[make(record) for make in (_yardsticks, _confirmed, _ledger, _curse, _shadows)],
        card=card(record.get("text")) if record["original"] else [],
        placed=[_placed(one) for one in record["original"]],
    )


def _yardsticks(record: Record) -> Rows:
    rows = []
    for one in record["comparisons"]:
        pair = f"{one['arm']} to {one['reference']}"
        rows.append([pair, "perplexity", one["answer"], *_ratio(one["difference"])])
        for other in one["readings"]:
            shown = _ratio if other["is_perplexity"] else _plain
            rows.append([pair, other["yardstick"], other["answer"], *shown(other["difference"])])
    columns = ["comparison", "yardstick", "answer", "change", "95% interval", "p value"]
    return Rows("The same question by every yardstick", columns, rows)


def _ratio(difference: Mapping[str, Any]) -> list[str]:
    change, low, high = (
        f"{100 * math.expm1(difference[key]):+.2f}%" for key in ("mean", "low", "high")
    )
    return [change, f"{low} to {high}", f"{difference['p']:.2g}"]


def _plain(difference: Mapping[str, Any]) -> list[str]:
    mean, low, high = (f"{difference[key]:+.4f}" for key in ("mean", "low", "high"))
    return [mean, f"{low} to {high}", f"{difference['p']:.2g}"]


def _confirmed(record: Record) -> Rows:
    rows = [
        [
            one["arm"],
            str(one["trial"]),
            perplexity(one["perplexity"]),
            ", ".join(perplexity(value) for value in one["perplexities"]),
        ]
        for one in record["confirmed"]
    ]
    columns = ["arm", "settings of trial", "perplexity", "by seed"]
    return Rows("What stands for each arm, on held-back stories", columns, rows)


def _ledger(record: Record) -> Rows:
    keys = ["asked", "complete", "pruned", "diverged", "oom", "failed", "tuned_parameters"]
    rows = [
        [
            one["arm"],
            *(str(one[key]) for key in keys),
            f"{one['tokens']:,}",
            duration(one["device_seconds"]),
        ]
        for one in record["ledger"]
    ]
    columns = ["arm", *(key.replace("_", " ") for key in keys), "tokens", "device time"]
    return Rows("What each arm was given in the search", columns, rows)


def _curse(record: Record) -> Rows:
    rows = [
        [
            one["arm"],
            str(one["trial"]),
            perplexity(one["searched"]),
            perplexity(one["confirmed"]),
            f"{100 * (one['ratio'] - 1):+.1f}%",
        ]
        for one in record["winners_curse"]
    ]
    columns = ["arm", "best trial", "in the search", "mean of fresh seeds", "change"]
    caption = "The winner's curse: the search's best, trained again, on the same stories"
    return Rows(caption, columns, rows)


def _shadows(record: Record) -> Rows:
    rows = [
        [
            one["arm"],
            str(one["shadows"]),
            str(one["among_best"]),
            DASH if one["rate"] is None else f"{one['low']:.0%} to {one['high']:.0%}",
        ]
        for one in record["shadows"]
    ]
    columns = ["arm", "ran on", "ended among the best", "95% interval of the share"]
    return Rows("Shadows: trials that should have been stopped, but ran on", columns, rows)


def _placed(one: Mapping[str, Any]) -> str:
    published = (
        f" The original's own figure is {one['published']:g}, on another scale."
        if one["published"] is not None
        else ""
    )
    return (
        f"{one['arm']}: its recommended settings ran as trial {one['trial']} and reached "
        f"{perplexity(one['perplexity'])}, number {one['rank']} of {one['complete']} complete "
        f"trials.{published}"
    )
