"""How much perplexity squentropy must lose by its square term alone, predicted and measured.

    python tests/benchmarks/square_weight.py tests/benchmarks/square_weight.json --data STORIES
    python tests/benchmarks/square_weight.py tests/benchmarks/square_weight.json --plot weight.html

Under softmax, squentropy is not a proper loss: where a token truly has distribution pi, the logits
f that minimise it satisfy softmax(f)_j = pi_j - kappa f_j (1 - pi_j) with kappa = 2 w / (V - 1). So
even a perfect model loses KL(pi || softmax(f)) nats, the more the larger the weight w. Here pi is
what a model trained by cross-entropy predicts on real stories, and the floor is solved for w by w;
beside it stands what models trained with these weights, from the same seeds, really lose. Products
are in float32: what is asked is what the loss costs, not what rounding does. All are trained at one
learning rate, so the measured ratios are those of that rate and not of each weight's best one.

Runs that the file holds already are kept, so that a stopped measurement goes on. --plot writes the
figure as .html, or as .png where kaleido finds a Chromium.
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from torch import Tensor

from gpt.config import DataConfig, TrainConfig, train_config
from gpt.data.dataset import prepare
from gpt.sample import load_model
from gpt.train import train_directory
from sweep.visualization.style import GREY, finish

WEIGHTS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
SEEDS = (1, 2, 3)
TOKENS = 512  # positions of validation over which the floor is averaged
SHAPE: dict[str, Any] = {
    "vocab_size": 4096,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 64,
    "block_size": 128,
    "batch_size": 8,
    "init_std": 0.07,
    "learning_rate": 3e-3,
    "warmup_steps": 200,
    "max_steps": 400,
    "eval_interval": 400,
    "eval_tokens": 16384,
    "dtype": "float32",
}

Result = dict[str, Any]


# --- what theory says --------------------------------------------------------------------------


def optimal_logits(pi: Tensor, weight: float) -> Tensor:
    """The logits (N, V) that minimise squentropy's mean where the true distribution is pi (N, V).

    For a given normaliser L of softmax each logit solves exp(f - L) + kappa f (1 - pi) = pi, which
    is increasing and convex in f, so Newton's method comes down to it from above. The right L is
    where the sum of (1 - pi) f is 0, and that sum increases with L.
    """
    slope = 2 * weight / (pi.shape[1] - 1) * (1 - pi)
    low = torch.zeros(len(pi), 1, dtype=pi.dtype)
    high = torch.full_like(low, 60.0)
    for _ in range(45):
        middle = (low + high) / 2
        logits = _newton(pi, slope, middle)
        above = ((1 - pi) * logits).sum(1, keepdim=True) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return logits


def _newton(pi: Tensor, slope: Tensor, normaliser: Tensor) -> Tensor:
    f = (normaliser + pi.log()).clamp(min=0.0)
    for _ in range(50):
        p = (f - normaliser).exp()
        change = (p + slope * f - pi) / (p + slope)
        f = f - change
        if float(change.abs().max()) < 1e-10:
            break
    return f


def floor(pi: Tensor, weight: float) -> float:
    """exp of the mean KL(pi || softmax(f)): the factor by which perplexity must be larger."""
    log_p = optimal_logits(pi, weight).log_softmax(1)
    return math.exp(float((pi * (pi.log() - log_p)).sum(1).mean()))


def floors(pi: Tensor) -> Result:
    """The floor for each weight; for a weight of 1, also where predictions are surer than these."""
    surer = [pi.pow(power) for power in (1.0, 1.25, 1.5, 2.0)]
    surer = [one / one.sum(1, keepdim=True) for one in surer]
    perplexities = [math.exp(-float((one * one.log()).sum(1).mean())) for one in surer]
    by_sureness = [
        {"perplexity": own, "floor": floor(one, 1.0)}
        for own, one in zip(perplexities, surer, strict=True)
    ]
    return {
        "floor": {str(weight): floor(pi, weight) for weight in WEIGHTS},
        "floor_of_weight_1_by_perplexity_of_the_truth": by_sureness,
    }


# --- what training does ------------------------------------------------------------------------


def measure(data: DataConfig, seed: int, weight: float | None) -> tuple[Result, Tensor]:
    """Train one model, by cross-entropy without a weight; its figures, and what it predicts."""
    loss = "cross_entropy" if weight is None else "squentropy"
    options = {} if weight is None else {"square_weight": weight}
    config = train_config(
        {**SHAPE, "data": data, "seed": seed, "loss": loss, "loss_options": options}
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(config.model_dump_json())
        (*_, last) = train_directory(Path(folder))
        run = {"seed": seed, "square_weight": weight, "perplexity": last.perplexity}
        return run | {"link_perplexity": last.link_perplexity}, predictions(Path(folder), config)


def predictions(run_dir: Path, config: TrainConfig) -> Tensor:
    """What a trained model predicts at positions all over the validation stories, (N, V)."""
    validation = prepare(config.data).validation(config.block_size, config.eval_tokens)
    model = load_model(run_dir)
    with torch.no_grad():
        hidden = model(validation.idx).flatten(0, 1)[validation.targets.flatten() >= 0]
        logits = model.logits(hidden[:: len(hidden) // TOKENS][:TOKENS])
    return logits.double().softmax(1)


def measure_all(source: str, out: Path) -> None:
    """Train what is missing, solve for the floor, and write both."""
    data = DataConfig(source=source, max_stories=14000, bpe_vocab_size=SHAPE["vocab_size"])
    result = json.loads(out.read_text()) if out.exists() else {}
    if any(result.get(name) != value for name, value in SHAPE.items()):
        result = {"runs": [], "floor": {}}  # of other models, which say nothing of these
    result |= {"command": "python tests/benchmarks/square_weight.py OUT --data STORIES"} | SHAPE
    known = {(run["seed"], run["square_weight"]) for run in result["runs"]}
    for seed in SEEDS:
        for weight in (None, *WEIGHTS):
            if (seed, weight) not in known:
                run, pi = measure(data, seed, weight)
                result["runs"].append(run)
                if weight is None and seed == SEEDS[0]:
                    result |= floors(pi)
                out.write_text(json.dumps(result, indent=1) + "\n")
                print(run, flush=True)


# --- reading it --------------------------------------------------------------------------------


def ratios(result: Result, figure: str, weight: float) -> list[float]:
    """A figure's ratio to the perplexity of cross-entropy from the same seed, seed by seed."""
    runs = {(run["seed"], run["square_weight"]): run for run in result["runs"]}
    return [runs[seed, weight][figure] / runs[seed, None]["perplexity"] for seed in SEEDS]


def table(result: Result) -> str:
    """One line per weight: the floor, and the geometric means of what was measured."""
    lines = ["square_weight   floor   softmax   own link"]
    for weight in WEIGHTS:
        softmax, link = (
            statistics.geometric_mean(ratios(result, figure, weight))
            for figure in ("perplexity", "link_perplexity")
        )
        floor_of = result["floor"][str(weight)]
        lines.append(f"{weight:>13} {floor_of:>7.3f} {softmax:>9.3f} {link:>10.3f}")
    return "\n".join(lines)


def plot(result: Result) -> go.Figure:
    """Perplexity's ratio to cross-entropy by weight: predicted, and measured with a ring a seed."""
    figure = go.Figure()
    floors = [result["floor"][str(weight)] for weight in WEIGHTS]
    dashes = {"color": GREY, "dash": "dash"}
    figure.add_scatter(x=WEIGHTS, y=floors, name="floor by theory", line=dashes)
    names = {"perplexity": "softmax", "link_perplexity": "its own link"}
    for (key, name), colour in zip(names.items(), ("#d55e00", "#0072b2"), strict=True):
        found = {weight: ratios(result, key, weight) for weight in WEIGHTS}
        means = [statistics.geometric_mean(one) for one in found.values()]
        rings = [(weight, ratio) for weight, one in found.items() for ratio in one]
        marker = {"color": colour, "symbol": "circle-open"}
        figure.add_scatter(x=WEIGHTS, y=means, name=f"measured, {name}", line={"color": colour})
        x, y = zip(*rings, strict=True)
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, showlegend=False)
    figure.update_xaxes(type="log", title_text="square_weight")
    figure.update_yaxes(type="log", title_text="ratio of perplexities to cross-entropy")
    return finish(figure)


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="of the figures, as JSON")
    parser.add_argument("--data", help="a folder of real stories: measure on them")
    parser.add_argument("--plot", type=Path, help="draw them: .html or .png")
    asked = parser.parse_args()
    if asked.data:
        measure_all(asked.data, asked.out)
    result = json.loads(asked.out.read_text())
    print(table(result))
    if asked.plot:
        write = (
            plot(result).write_html if asked.plot.suffix == ".html" else plot(result).write_image
        )
        write(asked.plot)


if __name__ == "__main__":
    main()
