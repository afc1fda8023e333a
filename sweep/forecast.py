"""What a trial that was stopped early would have ended with, by the curves of its arm."""

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial


def forecast(trial: FrozenTrial, complete: Sequence[FrozenTrial]) -> float:
    """The last perplexity that a pruned trial was on its way to.

    The complete trial that was nearest at the step where this one was stopped went on to fall by
    some factor: so would this one have.

    Args:
        trial: A pruned trial, told with its last perplexity.
        complete: Trials of the same arm that were evaluated at the same steps.

    Returns:
        Its own last perplexity where no complete trial was evaluated at that step.
    """
    value: float = trial.values[0]
    step = trial.last_step
    there: list[tuple[float, float]] = [
        (other.intermediate_values[step], other.values[0])
        for other in complete
        if step in other.intermediate_values
    ]
    if not there:
        return value
    at_step, end = min(there, key=lambda pair: abs(math.log(pair[0] / value)))
    return value * end / at_step
