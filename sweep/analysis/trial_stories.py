"""A story of each complete trial, from the notes that its sweep wrote for Optuna Dashboard."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import optuna

from sweep.storage.schema import trial_attrs

STORY_HEADING = "A story:"


def quoted(story: str) -> list[str]:
    """Return the lines by which a trial's note ends with a story, in Markdown."""
    return [STORY_HEADING, "", *(f"> {escaped(line)}" for line in story.splitlines()), ""]


def escaped(text: str) -> str:
    """Escape what Markdown would take for markup or for a column of a table."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)


def attributes_by_trial(attributes: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Group a study's system attributes that Optuna Dashboard keeps for a trial, by trial id.

    Its own code looks through all of them for each trial: minutes, where there are thousands.
    """
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for key, value in attributes.items():
        if match := _OF_TRIAL.match(key):
            found[int(match[1])][key] = value
    return found


_OF_TRIAL = re.compile(r"dashboard:(?:artifacts:)?(\d+):")


def stories_by_trial(study: optuna.Study, numbers: Collection[int]) -> dict[int, str]:
    """Return the story of each of these trials whose note has one, by number."""
    from optuna_dashboard._note import get_note_from_system_attrs

    attributes = attributes_by_trial(study._storage.get_study_system_attrs(study._study_id))
    found = {}
    for trial in study.get_trials(deepcopy=False):
        if trial.number in numbers and trial_attrs(trial).outcome == "complete":
            of_trial = attributes.get(trial._trial_id, {})
            note = get_note_from_system_attrs(of_trial, trial._trial_id)["body"]
            if story := _story_of(note):
                found[trial.number] = story
    return found


def _story_of(note: str) -> str:
    quote = note.partition(f"{STORY_HEADING}\n\n")[2].splitlines()
    lines = (line.removeprefix("> ") for line in quote if line.startswith(">"))
    return re.sub(r"\\(.)", r"\1", "\n".join(lines)).strip()
