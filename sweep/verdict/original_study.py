"""The card of the original study: what its report and its code show, and where that falls here."""

from dataclasses import dataclass

import optuna

from sweep.analysis.results import arm_of, arms, complete_trials

BASELINE = "original"  # the baseline that has the original study's recommended settings

FACTS = (
    (
        "Search",
        "A grid of 27 trials of 50 iterations each, all inside a learning-rate warm-up of 2,000: "
        "no trial ever reached its learning rate.",
    ),
    (
        "Learning rates",
        "6e-6, 6e-4 and 6e-2. Its best, 6e-5, is no point of that grid; it is the minimum to which "
        "nanoGPT's schedule decays.",
    ),
    ("Seeds", "One. Runs that differ by their seed alone differ by about 1 % of perplexity."),
    (
        "Perplexity",
        "On 10,240 tokens, drawn anew for each model: an interval of about plus or minus 13 %.",
    ),
    (
        "Cross-entropy",
        "Its test loss 1.826 means a perplexity of exp(1.826) = 6.2, not the 3.8 that it prints.",
    ),
    (
        "Squentropy",
        "Its perplexity 5.2 fits its own objective, which is not a cross-entropy: the two figures "
        "that it compares do not measure the same thing.",
    ),
    (
        "Loss",
        "Its code trained a rescaled square loss: cross-entropy plus the mean over all classes of "
        "(onehot - f)^2 with the true class's term times 65. Its text describes squentropy.",
    ),
    (
        "Scale",
        "Another than that of this study: model, vocabulary and budget differ, so its perplexities "
        "and ours do not compare.",
    ),
)
PUBLISHED = {"cross_entropy": 6.2, "squentropy": 5.2}  # the first recomputed from its test loss


def card(text: str | None) -> list[tuple[str, str]]:
    """The facts, each with its name; at last the text of this study, where it is known."""
    if text is None:
        return list(FACTS)
    other = f"This study's is {text}. Where the original's was another, that alone sets them apart."
    return [*FACTS, ("Text", other)]


@dataclass(frozen=True)
class Placed:
    """The original study's settings among the trials of an arm."""

    arm: str
    trial: int
    perplexity: float
    rank: int  # 1: the best of the arm's complete trials
    complete: int
    published: float | None  # on the original's own scale


def placements(study: optuna.Study) -> list[Placed]:
    """Where the original's settings, which run as a baseline, fall in each arm.

    Empty where the study has no such baseline, or none that is complete.
    """
    placed = []
    for arm in arms(study):
        complete = sorted(complete_trials(study, arm), key=lambda trial: trial.values[0])
        for rank, trial in enumerate(complete, start=1):
            if trial.user_attrs.get("origin") == f"baseline:{BASELINE}":
                published = PUBLISHED.get(arm_of(trial))
                value = float(trial.values[0])
                placed.append(Placed(arm, trial.number, value, rank, len(complete), published))
    return placed
