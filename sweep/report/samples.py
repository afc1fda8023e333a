"""Stories side by side: the same prompts and seed for the best and the median trial of each arm.

One story proves nothing, and the best trial's may be luck: hence the median trial, and figures of
how varied and how repetitive the texts are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt.errors import SquenSweepError
from sweep.analysis.study_reader import Stored, rows_of, run_dir_of
from sweep.format import Show, unseen

PROMPTS = ("Once upon a time", "One day, a little girl", "The dog was sad because")
SEED = 0  # of the draws; the same for every trial, as `squen-sweep sample` has it
MAX_NEW_TOKENS = 120  # of a story at most
REPEATED = 4  # words; a sequence that long rarely comes twice in a good short text


@dataclass(frozen=True)
class Told:
    """What one trial tells, or why it tells nothing."""

    arm: str
    number: int
    role: str  # "best" or "median" complete trial of its arm
    perplexity: float
    texts: list[str]  # one per prompt; empty where `missing` says why
    missing: str | None = None

    def distinct(self, n: int) -> float:
        """See `distinct`; of all texts together."""
        return distinct([text.split() for text in self.texts], n)

    @property
    def repetition(self) -> float:
        """Share of the sequences of REPEATED words that came before in the same text."""
        return repetition([text.split() for text in self.texts], REPEATED)


def chosen(stored: Stored) -> list[tuple[str, str, int, float]]:
    """Arm, role, number and perplexity of the trials that tell: per arm the best and the median.

    The median is the complete trial in the middle by perplexity, the better of two; an arm with
    one complete trial has only a best.
    """
    trials = []
    for arm in stored.arms:
        complete = rows_of(stored.complete[stored.complete["arm"] == arm])
        middle = (len(complete) - 1) // 2
        roles = {"best": 0, "median": middle} if middle > 0 else {"best": 0}
        for role, place in roles.items() if complete else ():
            row = complete[place]
            trials.append((arm, role, row["number"], row["perplexity"]))
    return trials


def tell(
    stored: Stored, prompts: Sequence[str] = PROMPTS, show: Show = unseen, done: float = 0.0
) -> list[Told]:
    """The stories of every chosen trial, from its checkpoint.

    Args:
        stored: The study.
        prompts: How the stories begin.
        show: Told what is under way, from `done` of a greater whole to the end of it.
        done: In [0, 1].
    """
    told = []
    tellers = chosen(stored)
    for place, (arm, role, number, perplexity) in enumerate(tellers):
        share = done + (1 - done) * place / len(tellers)
        show(f"telling stories: trial {number}, the {role} of {arm}", share)
        texts, missing = stories_of(run_dir_of(stored, number), prompts)
        told.append(Told(arm, number, role, perplexity, texts, missing))
    return told


def stories_of(run_dir: Path, prompts: Sequence[str]) -> tuple[list[str], str | None]:
    """What a run tells to each prompt, or an empty list and why not."""
    if not (run_dir / "checkpoints").is_dir():
        return [], f"There is no checkpoint in {run_dir}."
    from gpt.sample import sample  # imports torch

    try:
        texts = [sample(run_dir, prompt, MAX_NEW_TOKENS, seed=SEED)[0] for prompt in prompts]
    except (SquenSweepError, OSError) as error:
        return [], str(error)
    return texts, None


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct sequences of n words over all sequences of n words, in [0, 1]; 0 without any.

    Source:
        Li, Galley, Brockett, Gao, Dolan (2016), "A Diversity-Promoting Objective Function for
        Neural Conversation Models", arXiv:1510.03055: distinct-n.
    """
    found = [gram for words in texts for gram in _grams(words, n)]
    return len(set(found)) / len(found) if found else 0.0


def repetition(texts: Sequence[Sequence[str]], n: int) -> float:
    """1 - distinct / all sequences of n words within a text, averaged over texts that have any.

    Source:
        Welleck et al. (2020), "Neural Text Generation with Unlikelihood Training",
        arXiv:1908.04319: seq-rep-n.
    """
    shares = [1 - len(set(grams)) / len(grams) for words in texts if (grams := _grams(words, n))]
    return sum(shares) / len(shares) if shares else 0.0


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
