"""The figure that ranks the trials of a study: its name, its direction, and how it is compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sweep.study.format import number, perplexity


@dataclass(frozen=True)
class Metric:
    """A ranked figure. Tables hold it in their column `perplexity`, whatever it is."""

    name: str = "perplexity"
    maximize: bool = False
    is_perplexity: bool = True  # its logarithm is nats per token

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Optuna's name of the direction."""
        return "maximize" if self.maximize else "minimize"

    def rank(self, value: float) -> float:
        """Return a number that is lower for better values."""
        return -value if self.maximize else value

    def shown(self, value: float | None) -> str:
        """Format a value in few characters; "-" for None."""
        return perplexity(value) if value is None or self.is_perplexity else number(value)


PERPLEXITY = Metric()


def metric_of(spec: Mapping[str, Any] | None) -> Metric:
    """Return the metric of a study.

    Args:
        spec: StudySpec as JSON, as a database holds it; None: another program's study.
    """
    if not spec:
        return PERPLEXITY
    if trainer := spec.get("trainer"):
        metric = trainer["metric"]
        if metric["direction"] == "minimize" and metric["unit"] in (None, "nats"):
            return PERPLEXITY
        return Metric(metric["name"], metric["direction"] == "maximize", is_perplexity=False)
    return Metric(spec.get("metric", "perplexity").replace("_", " "))
