"""How an answer changes with scale: squentropy against cross-entropy at three budgets.

    python -m tests.benchmarks.scaling STORIES FOLDER

Each budget has four times the parameters (without the embeddings) and four times the tokens of the
one before it, so sixteen times the compute. At each, both losses have eight trials for their
learning rate, and their best is trained again with five fresh seeds. Rerun to resume; what is
complete is not repeated. `python -m tests.benchmarks.scaling --picture OUT.png` draws the figure of
scaling.json; it needs kaleido and a Chromium.
"""

import json
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from tests.benchmarks import measuring
from tests.benchmarks.small_to_big import squen

TRIALS = 16
LAYERS, VOCABULARY, BLOCK, BATCH = 2, 1024, 128, 8
BUDGETS = ((1, 32, 100), (4, 64, 400), (16, 128, 1600))  # times as large, n_embd, max_steps
STUDY = """\
name = "scale-{times}"
question = "Does squentropy beat cross-entropy at {times} times the parameters and tokens?"
compare = "loss"
search.loss = {{ choices = ["cross_entropy", "squentropy"] }}
search.learning_rate = {{ low = 1e-3, high = 3e-2, log = true }}

[data]
source = "auto"
bpe_vocab_size = {vocabulary}

[train]
n_layer = {layers}
n_embd = {width}
n_head = {heads}
init_std = {init_std}
block_size = {block}
batch_size = {batch}
max_steps = {steps}
warmup_steps = {warmup}
min_lr_ratio = 0.1
weight_decay = 0.1
beta2 = 0.95
eval_interval = {interval}
eval_tokens = 32768

[sampler]
startup_trials = 4

[verdict]
top = 1
seeds = 5
"""


def study(times: int, width: int, steps: int) -> str:
    """Write the study file of a budget."""
    return STUDY.format(
        times=times,
        vocabulary=VOCABULARY,
        layers=LAYERS,
        width=width,
        heads=width // 32,
        init_std=round(0.02 * (768 / width) ** 0.5, 3),  # see init_std.json
        block=BLOCK,
        batch=BATCH,
        steps=steps,
        warmup=steps // 5,
        interval=steps // 10,
    )


def answer(stories: str, folder: Path, times: int, width: int, steps: int) -> dict[str, Any]:
    """Run a sweep and its verdict; return what the picture shows."""
    name = f"scale-{times}"
    file = folder / f"{name}.toml"
    file.write_text(study(times, width, steps))
    words = ("--study", str(file), "--trials", str(TRIALS), "--data", stories, "--quiet")
    squen(folder, "run", *words)
    record = json.loads(squen(folder, "verdict", "--study", name, "--json"))
    (comparison,) = record["comparisons"]
    parameters = 12 * LAYERS * width**2
    tokens = BATCH * BLOCK * steps
    return {
        "times": times,
        "n_embd": width,
        "parameters": parameters,  # of the blocks
        "tokens": tokens,
        "flops": 6 * (parameters + VOCABULARY * width) * tokens,
        "confirmed": {
            one["arm"]: {key: one[key] for key in ("params", "perplexity", "perplexities")}
            for one in record["confirmed"]
        },
        **{key: comparison[key] for key in ("ratio", "ratio_low", "ratio_high", "settings_answer")},
        "log_ratio_by_own_link": next(
            reading["difference"]["mean"]
            for reading in comparison["other_metrics"]
            if "link function" in reading["metric"]
        ),
    }


def picture(budgets: list[dict[str, Any]]) -> go.Figure:
    """Draw the ratio of perplexities with its interval against compute."""
    ratios = [one["ratio"] for one in budgets]
    above = [one["ratio_high"] - one["ratio"] for one in budgets]
    below = [one["ratio"] - one["ratio_low"] for one in budgets]
    figure = go.Figure(
        go.Scatter(
            x=[one["flops"] for one in budgets],
            y=ratios,
            error_y={"type": "data", "array": above, "arrayminus": below, "thickness": 3},
            mode="markers+lines+text",
            text=[f" x{one['times']}: {one['ratio']:.2f}<br> " for one in budgets],
            textposition=["bottom right", *["top center"] * (len(budgets) - 1)],
            marker={"size": 14},
            cliponaxis=False,
        )
    )
    grey = {"color": "#5b616b", "width": 2, "dash": "dot"}
    figure.add_hline(y=1, line=grey, annotation_text="as good as cross-entropy")
    low = min([1.0, *(one["ratio_low"] for one in budgets)])
    high = max(one["ratio_high"] for one in budgets)
    room = 0.12 * (high - low)
    figure.update_xaxes(
        type="log", dtick=1, title_text="training FLOPs of a trial", exponentformat="power"
    )
    figure.update_yaxes(
        title_text="perplexity of squentropy / cross-entropy", range=[low - room, high + room]
    )
    return figure.update_layout(
        template="simple_white",
        width=1100,
        height=600,
        font={"size": 20},
        margin={"l": 100, "r": 150, "t": 30, "b": 80},
        showlegend=False,
    )


def main(stories: str, folder: Path) -> None:
    """Ask at every budget, and write the results after each."""
    folder.mkdir(parents=True, exist_ok=True)
    budgets: list[dict[str, Any]] = []
    for times, width, steps in BUDGETS:
        budgets.append(answer(stories, folder, times, width, steps))
        measuring.write("scaling", {"trials": TRIALS, "budgets": budgets}, "STORIES FOLDER")


if __name__ == "__main__":
    if sys.argv[1] == "--picture":
        stored = json.loads((measuring.HERE / "scaling.json").read_text())
        picture(stored["budgets"]).write_image(sys.argv[2], scale=1.5)
    else:
        main(sys.argv[1], Path(sys.argv[2]))
