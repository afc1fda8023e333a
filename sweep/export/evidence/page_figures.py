"""The figures of a report's page, to compare two pages: drawn figures, tables, the answer."""

import base64
import json
import math
from html.parser import HTMLParser
from typing import Any

import numpy as np

TOLERANCE = 1e-6  # relative, of a number: another machine's last digits may differ
COMPARED = ("answer", "verdict", "configurations", "explore")  # sections whose words are compared
WITHOUT_STORY = "–"  # a cell's text where a trial has no story


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[str, Any] = {}
        self.words: dict[str, list[str]] = {}
        self._section = ""
        self._figure = ""
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "section":
            self._section = named.get("id") or ""
        elif tag == "figure":
            self._figure = (named.get("id") or "").removeprefix("figure-")
        elif tag == "script":
            self._script = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._section = ""
        elif tag == "figure":
            self._figure = ""
        elif tag == "script":
            self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            if self._figure:
                self.figures[self._figure] = _plain(json.loads(data)["data"])
        elif self._section in COMPARED and (text := " ".join(data.split())):
            found = self.words.setdefault(self._section, [])
            found.append(WITHOUT_STORY if text == "story" else text)


def page_figures(page: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return a page's figures, the traces of each, and the words of its compared sections.

    Raises:
        ValueError: a figure of the page is no JSON.
    """
    parser = _Page()
    parser.feed(page)
    parser.close()
    return parser.figures, parser.words


def differences(ours: str, theirs: str) -> list[str]:
    """List the figures and sections in which two pages differ, by name."""
    (figures, words), (other_figures, other_words) = page_figures(ours), page_figures(theirs)
    found = [
        f"figure {name}"
        for name in {**figures, **other_figures}
        if not _alike(figures.get(name), other_figures.get(name))
    ]
    return found + [
        f"section {name}"
        for name in {**words, **other_words}
        if words.get(name) != other_words.get(name)
    ]


def _plain(value: Any) -> Any:
    """Return traces with arrays as lists: plotly writes long ones in base64."""
    if isinstance(value, dict):
        if set(value) >= {"dtype", "bdata"}:
            return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12)
    return bool(one == other)
