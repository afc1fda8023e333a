"""The verdict's part of a report, as plain values; verdict.html.jinja lays it out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.analysis.study_reader import DASH
from sweep.study.format import change, duration
from sweep.verdict.record import Record
from sweep.verdict.searches.words import winner_columns, winner_rows
from sweep.verdict.statistics import ERROR_RATE
from sweep.verdict.summary_text import confidence, figure_format, table_columns, table_rows


@dataclass(frozen=True)
class Rows:
    """A small table."""

    caption: str
    columns: list[str]
    rows: list[list[str]]

    @property
    def numeric(self) -> list[bool]:
        """Return for each column whether it holds numbers alone."""
        return [all(map(_is_number, cells)) for cells in zip(*self.rows, strict=True)]


def _is_number(cell: str) -> bool:
    return cell in ("", DASH) or cell[-1:].isdigit() or cell.endswith(("%", "%)"))


@dataclass(frozen=True)
class Section:
    """The tables and the background that the page shows of a verdict."""

    answer: Rows  # before the paragraph that puts it into words
    tables: list[Rows]
    background: dict[str, dict[str, str]]  # the study file's


def make_section(record: Record) -> Section | None:
    """Lay out all of a verdict besides its paragraph and its figures.

    Returns:
        None for a record of an earlier version, of which only the words are shown.
    """
    if "answers_are_about" not in record:
        return None
    makers = (_metrics, _confirmed, _ledger, _baselines, _curse, _shadows)
    over = [_winners(record)] if record.get("searches") else []
    return Section(
        answer=Rows(_caption(record), table_columns(record), table_rows(record)),
        tables=over + [make(record) for make in makers],
        background=record["background"],
    )


def _winners(record: Record) -> Rows:
    rows = winner_rows(record["searches"], is_perplexity=record.get("is_perplexity", True))
    seeds = record["searches"]["seeds"]
    caption = f"The winners of each search, mean of {seeds} fresh seeds{_where(record)}"
    return Rows(caption, winner_columns(record["metric"]), rows)


def _caption(record: Record) -> str:
    which = "the first" if record.get("searches") else "one"
    return (
        f"The settings that {which} search found for each arm: {record['metric']}, mean of "
        f"{len(record['seeds'])} fresh seeds{_where(record)}"
    )


def _where(record: Record) -> str:
    return "" if record.get("is_program") else " on held-back stories"


def _metrics(record: Record) -> Rows:
    rows = []
    for one in record["comparisons"]:
        pair = f"{one['arm']} to {one['reference']}"
        level = confidence(one["difference"]["error_rate"])
        margin = f"{100 * record['margin']:g}%"
        change = [*_ratio(one["difference"]), _p(one), level]
        rows.append([pair, record["metric"], one["settings_answer"], *change, margin])
        for other in one["other_metrics"]:
            shown = _ratio if other["is_perplexity"] else _plain
            change = [*shown(other["difference"]), _p(other), level]
            rows.append(
                [pair, other["metric"], other["settings_answer"], *change, _margin(other, margin)]
            )
    columns = ["comparison", "metric", "these settings are", "change", "interval"]
    caption = (
        "The same comparison by every metric; without a margin, no equivalence is claimed. Below "
        f"{ERROR_RATE:.0%}, a p value shows a difference: it is corrected for the number of arms "
        "and of analyses. An interval is corrected for the number of analyses alone"
    )
    return Rows(caption, [*columns, "corrected p value", "level", "margin"], rows)


def _shown(record: Record) -> Callable[[float], str]:
    return figure_format(record.get("is_perplexity", True))


def _margin(other: Mapping[str, Any], of_perplexity: str) -> str:
    if other["is_perplexity"]:
        return of_perplexity
    return DASH if other["margin"] is None else f"{other['margin']:.4f}"


def _ratio(difference: Mapping[str, Any]) -> list[str]:
    change, low, high = (
        f"{100 * math.expm1(difference[key]):+.2f}%" for key in ("mean", "low", "high")
    )
    return [change, f"{low} to {high}"]


def _plain(difference: Mapping[str, Any]) -> list[str]:
    mean, low, high = (f"{difference[key]:+.4f}" for key in ("mean", "low", "high"))
    return [mean, f"{low} to {high}"]


def _p(comparison: Mapping[str, Any]) -> str:
    """Write the p value that the answer goes by; a record of an earlier version may have none."""
    return f"{comparison['p_adjusted']:.2g}" if "p_adjusted" in comparison else DASH


def _confirmed(record: Record) -> Rows:
    shown = _shown(record)
    rows = [
        [
            one["arm"],
            str(one["trial"]),
            shown(one["perplexity"]),
            ", ".join(shown(value) for value in one["perplexities"]),
        ]
        for one in record["confirmed"]
    ]
    columns = ["arm", "settings of the search's trial", record["metric"], "by seed"]
    return Rows(f"The runs behind each arm{_where(record)}", columns, rows)


def _ledger(record: Record) -> Rows:
    extended = any(one.get("taken_over") for one in record["ledger"])
    several = any("search" in one for one in record["ledger"])
    keys = ["asked", *(["taken_over"] if extended else []), "complete", "pruned", "diverged"]
    keys += ["oom", "timeout", "failed", "tuned_parameters"]
    rows = [
        [
            *([str(one["search"])] if several else []),
            one["arm"],
            *(str(one.get(key, 0)) for key in keys),  # an old record counts fewer kinds
            f"{one['tokens']:,}",
            duration(one["device_seconds"]),
        ]
        for one in record["ledger"]
    ]
    columns = ["arm", *(key.replace("_", " ") for key in keys), "tokens", "device time"]
    columns = ["search", *columns] if several else columns
    return Rows(f"The budget of each arm in {'each' if several else 'the'} search", columns, rows)


def _baselines(record: Record) -> Rows:
    shown = _shown(record)
    rows = [
        [
            one["arm"],
            one["baseline"],
            str(one["trial"]),
            shown(one["perplexity"]),
            f"{one['rank']} of {one['complete']}",
        ]
        for one in record["baselines"]
    ]
    columns = ["arm", "baseline", "the search's trial", "in the search", "rank"]
    return Rows("Baselines among the complete trials of their arm", columns, rows)


def _curse(record: Record) -> Rows:
    shown = _shown(record)
    rows = [
        [
            one["arm"],
            str(one["trial"]),
            shown(one["searched"]),
            shown(one["confirmed"]),
            change(one["ratio"]),
        ]
        for one in record["winners_curse"]
    ]
    columns = ["arm", "the search's best trial", "in the search", "mean of fresh seeds", "change"]
    same = "" if record.get("is_program") else ", on the same stories"
    caption = f"The winner's curse: the search's best, trained again{same}"
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
