"""What a trial's time goes into: training, and evaluation by all yardsticks; for either loss.

    python -m tests.benchmarks.trial_parts

Trains the middle of the tinystories CPU budget to its end, on one thread as in a sweep.
"""

from functools import partial
from typing import Any

from gpt.data import prepare
from gpt.train import train
from sweep.spec import load_study
from sweep.study_data import pinned
from tests.benchmarks import measuring
from tests.benchmarks.precision import PRECISIONS

LOSSES = ("cross_entropy", "squentropy")


def trial(loss: str, dtype: str, shares: dict[str, list[float]]) -> float:
    """Training tokens per second; the share of evaluation is added to `shares`."""
    spec = load_study("tinystories", "cpu")
    source = spec.data.model_copy(update={"source": "built-in"})
    params = {"learning_rate": 3e-3, "dropout": 0.1, "n_layer": 3, "loss": loss}
    config = spec.train_config(params, pinned(source, prepare(source)), "cpu", 1)
    *_, last = evaluations = list(train(config.model_copy(update={"dtype": dtype})))
    between = config.eval_interval * config.tokens_per_step
    training = sum(between / evaluation.tokens_per_second for evaluation in evaluations)
    shares[f"{loss} {dtype}"].append(round(1 - training / last.elapsed_seconds, 4))
    return last.tokens / training


def main() -> None:
    """Measure and write the results."""
    cases = [(loss, dtype) for dtype in PRECISIONS for loss in LOSSES]
    shares: dict[str, list[float]] = {f"{loss} {dtype}": [] for loss, dtype in cases}
    rates = measuring.alternate(
        {f"{loss} {dtype}": partial(trial, loss, dtype, shares) for loss, dtype in cases},
        digits=0,
    )
    figures: dict[str, Any] = {
        "tokens_per_second": rates,
        "squentropy_to_cross_entropy": {
            dtype: measuring.ratios(rates[f"squentropy {dtype}"], rates[f"cross_entropy {dtype}"])
            for dtype in PRECISIONS
        },
        "evaluation_share": shares,
        "evaluation_share_summary": {
            name: measuring.spread(values) for name, values in shares.items()
        },
    }
    measuring.write("trial_parts", figures)


if __name__ == "__main__":
    main()
