"""What a trial's time goes into: training, and evaluation by all yardsticks; for either loss.

    python -m tests.benchmarks.trial_parts

Trains the middle of the tinystories CPU budget to its end, as in a sweep: on one thread, in the
precision that is faster on this machine.
"""

from functools import partial
from typing import Any

from gpt.data.dataset import prepare
from gpt.train import train
from sweep.study.dataset import pin_dataset
from sweep.study.toml_file import read_study_file
from sweep.trainers.gpt import faster_dtype
from tests.benchmarks import measuring

LOSSES = ("cross_entropy", "squentropy")
REPEATS = 11  # the losses differ by less than a minute of this machine from the next


def trial(loss: str, shares: dict[str, list[float]]) -> float:
    """Training tokens per second; the share of evaluation is added to `shares`."""
    spec = read_study_file("tinystories", "cpu").with_dtype(faster_dtype("cpu"))
    source = spec.data.model_copy(update={"source": "built-in"})
    params = {"learning_rate": 3e-3, "dropout": 0.1, "n_layer": 3, "loss": loss}
    config = spec.train_config(params, pin_dataset(source, prepare(source)), "cpu", 1)
    *_, last = evaluations = list(train(config))
    between = config.eval_interval * config.tokens_per_step
    training = sum(between / evaluation.tokens_per_second for evaluation in evaluations)
    shares[loss].append(round(1 - training / last.elapsed_seconds, 4))
    return last.tokens / training


def main() -> None:
    """Measure and write the results."""
    shares: dict[str, list[float]] = {loss: [] for loss in LOSSES}
    trials = {loss: partial(trial, loss, shares) for loss in LOSSES}
    rates = measuring.alternate(trials, REPEATS, digits=0)
    figures: dict[str, Any] = {
        "dtype": faster_dtype("cpu"),
        "tokens_per_second": rates,
        "squentropy_to_cross_entropy": measuring.ratios(
            rates["squentropy"], rates["cross_entropy"]
        ),
        "evaluation_share": shares,
        "evaluation_share_summary": {
            loss: measuring.spread(values) for loss, values in shares.items()
        },
    }
    measuring.write("trial_parts", figures)


if __name__ == "__main__":
    main()
