"""Sampled stories side by side, from the best and the median trial of each arm.

Prompts and seed are the same for all. One story proves nothing, and the best trial's may be luck:
hence the median trial, and measures of variety and repetition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt.errors import SquenSweepError
from sweep.analysis.study_reader import StudyReader, rows_of, run_dir_of
from sweep.study.format import Show, relative, unseen

PROMPTS = ("Once upon a time", "One day, a little girl", "The dog was sad because")
SEED = 0  # of the draws; the same for every trial, as `squen-sweep sample` has it
MAX_NEW_TOKENS = 120  # of a story at most
REPEATED = 4  # words; a sequence that long rarely comes twice in a good short text


@dataclass(frozen=True)
class SampledStories:
    """Stories of one trial's model, or the reason why there are none."""

    arm: str
    number: int
    role: str  # "best" or "median" complete trial of its arm
    perplexity: float
    texts: list[str]  # one per prompt; empty if `missing` gives a reason
    missing: str | None = None

    def distinct(self, n: int) -> float:
        """Return distinct-n of all texts together, in [0, 1]."""
        return distinct([text.split() for text in self.texts], n)

    @property
    def repetition(self) -> float:
        """Share of the sequences of REPEATED words that came before in their text."""
        return repetition([text.split() for text in self.texts], REPEATED)


def sampled_trials(reader: StudyReader) -> list[tuple[str, str, int, float]]:
    """List arm, role, number and perplexity of the best and the median trial of each arm.

    The median is the complete trial in the middle by perplexity, the better of two; an arm with
    one complete trial has only a best.
    """
    trials = []
    for arm in reader.arms:
        complete = rows_of(reader.complete[reader.complete["arm"] == arm])
        middle = (len(complete) - 1) // 2
        roles = {"best": 0, "median": middle} if middle > 0 else {"best": 0}
        for role, rank in roles.items() if complete else ():
            row = complete[rank]
            trials.append((arm, role, row["number"], row["perplexity"]))
    return trials


def sample_stories(
    reader: StudyReader, prompts: Sequence[str] = PROMPTS, show: Show = unseen, done: float = 0.0
) -> list[SampledStories]:
    """Sample the stories of the best and the median trials from their checkpoints.

    Args:
        reader: The study.
        prompts: The beginnings of the stories.
        show: Called with each step and the share of the report that is done before it.
        done: That share at the start, in [0, 1].
    """
    found = []
    trials = sampled_trials(reader)
    for i, (arm, role, number, perplexity) in enumerate(trials):
        share = done + (1 - done) * i / len(trials)
        show(f"sampling stories: trial {number}, the {role} of {arm}", share)
        texts, missing = stories_of(run_dir_of(reader, number), prompts)
        found.append(SampledStories(arm, number, role, perplexity, texts, missing))
    return found


def stories_of(run_dir: Path, prompts: Sequence[str]) -> tuple[list[str], str | None]:
    """Sample a story for each prompt, or return an empty list and the reason."""
    if not (run_dir / "checkpoints").is_dir():
        missing = "is no checkpoint in" if run_dir.is_dir() else "is no run directory"
        return [], f"There {missing} {relative(run_dir)}."
    from gpt.sample import sample  # imports torch

    try:
        texts = [sample(run_dir, prompt, MAX_NEW_TOKENS, seed=SEED)[0] for prompt in prompts]
    except (SquenSweepError, OSError) as error:
        return [], str(error)
    return texts, None


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Divide the distinct sequences of n words by all of them, in [0, 1]; 0 without any.

    Source:
        Li, Galley, Brockett, Gao, Dolan (2016), "A Diversity-Promoting Objective Function for
        Neural Conversation Models", arXiv:1510.03055: distinct-n.
    """
    found = [gram for words in texts for gram in _grams(words, n)]
    return len(set(found)) / len(found) if found else 0.0


def repetition(texts: Sequence[Sequence[str]], n: int) -> float:
    """Average 1 - distinct / all sequences of n words within a text over texts that have any.

    Source:
        Welleck et al. (2020), "Neural Text Generation with Unlikelihood Training",
        arXiv:1908.04319: seq-rep-n.
    """
    shares = [1 - len(set(grams)) / len(grams) for words in texts if (grams := _grams(words, n))]
    return sum(shares) / len(shares) if shares else 0.0


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
