"""How much perplexity squentropy must lose by its square term alone, predicted and measured.

    python tests/benchmarks/square_weight.py DATA tests/benchmarks/square_weight.json

Under softmax, squentropy is not a proper loss: where a token truly has distribution pi, the logits
f that minimise it satisfy softmax(f)_j = pi_j - kappa f_j (1 - pi_j) with kappa = 2 w / (V - 1). So
even a perfect model loses KL(pi || softmax(f)) nats, the more the larger the weight w. Here pi is
what a model trained by cross-entropy predicts on real stories, and the floor is solved for w by w;
beside it stands what models trained with these weights, from the same seed, really lose.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt.config import DataConfig, TrainConfig, train_config
from gpt.data import prepare
from gpt.sample import load_model
from gpt.train import train

WEIGHTS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
TOKENS = 512  # positions of validation over which the floor is averaged
SHAPE: dict[str, Any] = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 64,
    "block_size": 128,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "warmup_steps": 40,
    "max_steps": 400,
    "eval_interval": 400,
    "eval_tokens": 16384,
}


def optimal_logits(pi: Tensor, weight: float) -> Tensor:
    """The logits (N, V) that minimise squentropy's mean where the true distribution is pi (N, V).

    For a given normaliser L of softmax each logit solves exp(f - L) + kappa f (1 - pi) = pi, which
    is increasing and convex in f, so Newton's method comes down to it from above. The right L is
    where the sum of (1 - pi) f is 0, and that sum increases with L.
    """
    slope = 2 * weight / (pi.shape[1] - 1) * (1 - pi)
    low = torch.zeros(len(pi), 1, dtype=pi.dtype)
    high = torch.full_like(low, 60.0)
    for _ in range(50):
        middle = (low + high) / 2
        logits = _newton(pi, slope, middle)
        above = ((1 - pi) * logits).sum(1, keepdim=True) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return logits


def _newton(pi: Tensor, slope: Tensor, normaliser: Tensor) -> Tensor:
    f = (normaliser + pi.log()).clamp(min=0.0)
    for _ in range(30):
        p = (f - normaliser).exp()
        f = f - (p + slope * f - pi) / (p + slope)
    return f


def floor(pi: Tensor, weight: float) -> float:
    """exp of the mean KL(pi || softmax(f)): the factor by which perplexity must be larger."""
    log_p = optimal_logits(pi, weight).log_softmax(1)
    return math.exp(float((pi * (pi.log() - log_p)).sum(1).mean()))


def predictions(run_dir: Path, config: TrainConfig) -> Tensor:
    """What a trained model predicts at the first positions of the validation stories, (N, V)."""
    validation = prepare(config.data).validation(config.block_size, config.eval_tokens)
    model, rows = load_model(run_dir), validation.idx[: 4 * TOKENS // config.block_size]
    with torch.no_grad():
        logits = model.logits(model(rows)).flatten(0, 1)
    known = logits[validation.targets[: len(rows)].flatten() >= 0]
    return known[:TOKENS].double().softmax(1)


def measure(data: DataConfig, vocab_size: int, loss: str, options: dict[str, float]) -> Any:
    """Train one model; returns its last evaluation, and what it predicts."""
    values = {**SHAPE, "data": data, "vocab_size": vocab_size, "loss": loss}
    config = train_config({**values, "loss_options": options})
    with tempfile.TemporaryDirectory() as folder:
        (*_, last) = train(config, Path(folder))
        return last, predictions(Path(folder), config)


def main(source: str, out: Path) -> None:
    """Train, solve, and write both."""
    data = DataConfig(source=source, max_stories=14000, bpe_vocab_size=2048)
    vocab_size = prepare(data).meta.vocab_size
    plain, pi = measure(data, vocab_size, "cross_entropy", {})
    rows = []
    for weight in WEIGHTS:
        last, _ = measure(data, vocab_size, "squentropy", {"square_weight": weight})
        row = {
            "square_weight": weight,
            "floor": floor(pi, weight),
            "softmax": last.perplexity / plain.perplexity,
            "own_link": last.link_perplexity / plain.perplexity,
        }
        print({key: round(value, 4) for key, value in row.items()}, flush=True)
        rows.append(row)
    result = {
        "command": "python tests/benchmarks/square_weight.py DATA OUT",
        "vocab_size": vocab_size,
        "cross_entropy_perplexity": plain.perplexity,
        "ratios_to_cross_entropy": rows,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
