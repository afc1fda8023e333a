"""Learning-rate schedules after the warm-up. Add one by adding a function and a SCHEDULES entry.

A schedule is a shape: the progress p from 0 (end of the warm-up) to 1 (end of the run) -> a height
from 1 (the peak) to 0 (min_lr_ratio times the peak).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpt.losses.options import Option, checked_options


def cosine(p: float) -> float:
    """Half a cosine from 1 to 0, as nanoGPT has it.

    Source:
        Loshchilov and Hutter (2017), "SGDR", arXiv:1608.03983, without restarts.
    """
    return 0.5 * (1.0 + math.cos(math.pi * p))


def linear(p: float) -> float:
    """A straight line from 1 to 0."""
    return 1.0 - p


def wsd(p: float, decay_ratio: float) -> float:
    """Warm-up, stable, decay: 1, then a straight line to 0.

    Args:
        decay_ratio: Share of the steps after the warm-up in which it falls, in (0, 1).

    Source:
        Hu et al. (2024), "MiniCPM", arXiv:2404.06395, section 4; the straight line: Hägele et al.
        (2024), arXiv:2405.18392.
    """
    return min(1.0, (1.0 - p) / decay_ratio)


def constant(p: float) -> float:
    """1 throughout: the peak is never left, whatever min_lr_ratio is."""
    return 1.0


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule that a run can name.

    Attributes:
        shape: Progress in [0, 1] and options -> height in [0, 1].
        options: The options it takes, by name.
    """

    shape: Callable[..., float]
    options: Mapping[str, Option] = field(default_factory=dict)

    def __call__(
        self,
        step: int,
        *,
        peak: float,
        warmup_steps: int,
        max_steps: int,
        min_lr_ratio: float,
        **options: float,
    ) -> float:
        """Learning rate of an optimiser step: linear warm-up, then the shape.

        Args:
            step: Counted from 0, below max_steps.
            peak: The learning rate after the warm-up.
            warmup_steps: Steps before the peak.
            max_steps: Steps of the run.
            min_lr_ratio: Lowest learning rate, as a share of the peak.
            options: Options of the schedule.

        Source:
            nanoGPT's get_lr with lr_decay_iters = max_steps and min_lr = min_lr_ratio * peak.
        """
        if step < warmup_steps:
            return peak * (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        low = peak * min_lr_ratio
        return low + self.shape(progress, **self.checked(options)) * (peak - low)

    def checked(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return these options with the defaults of all others; see checked_options."""
        return checked_options(self.shape.__name__, self.options, options)


SCHEDULES: dict[str, Schedule] = {
    "cosine": Schedule(cosine),
    "linear": Schedule(linear),
    "wsd": Schedule(
        wsd, {"decay_ratio": Option(0.2, low=0.05, high=0.5, at_least=1e-3, below=1.0)}
    ),
    "constant": Schedule(constant),
}
