"""Losses that a transfer check predicted, and the final training that finds its own."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from gpt.config import TrainConfig
from gpt.system.files import atomic_write_text
from sweep.study.format import perplexity

PREDICTIONS = "transfer.json"  # in the folder of a study's runs
# What a run's loss does not depend on, or as little as on the seed.
_NO_MATTER = {
    *("device", "threads", "dtype", "compile", "seed", "plugins", "data"),
    *("eval_interval", "sample_interval"),
}


@dataclass(frozen=True)
class Prediction:
    """Cross-entropy that a run is predicted to end with, in nats per token."""

    nats: float
    low: float  # of the 95 % interval
    high: float
    trusted: bool  # False: the transfer check said not to trust its ranking

    def line(self) -> str:
        """Return the prediction as perplexities, in one line."""
        ends = f"{perplexity(math.exp(self.low))} to {perplexity(math.exp(self.high))}"
        doubt = "" if self.trusted else "; do not trust the ranking behind it"
        return f"perplexity {perplexity(math.exp(self.nats))} (95% interval {ends}){doubt}"

    def outcome(self, nats: float) -> str:
        """Return what came instead, in one line."""
        inside = self.low <= nats <= self.high
        where = "within the interval" if inside else "outside of the interval"
        return (
            f"predicted: perplexity {perplexity(math.exp(self.nats))}; came: "
            f"{perplexity(math.exp(nats))}, {where}"
        )


def run_digest(config: TrainConfig) -> str:
    """SHA-256 of all that a run's loss depends on but its seed and its machine, in hex."""
    values = config.model_dump(mode="json", exclude=_NO_MATTER)
    values["text"] = config.data.fingerprint
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def keep_predictions(path: Path, predictions: Iterable[tuple[TrainConfig, Prediction]]) -> None:
    """Add predictions to a file; one of the same run is replaced."""
    known = json.loads(path.read_text()) if path.exists() else {}
    new = {run_digest(config): asdict(prediction) for config, prediction in predictions}
    atomic_write_text(path, json.dumps(known | new, indent=1) + "\n")


def find_prediction(runs: Path, config: TrainConfig) -> Prediction | None:
    """Return what a transfer check below `runs` predicted of this run; None: there is nothing."""
    wanted = run_digest(config)
    for path in sorted(runs.glob(f"*/{PREDICTIONS}")):
        try:
            known = json.loads(path.read_text())
            if wanted in known:
                return Prediction(**known[wanted])
        except (OSError, ValueError, TypeError):  # damaged: as if there were none
            continue
    return None
