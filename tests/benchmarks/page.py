"""BENCHMARKS.md, made of the JSON files beside it.

    python -m tests.benchmarks.page

A figure that falls short has its reason in limits.md. The GPU column and the table after it come
from gpu.json, which `python -m tests.benchmarks.gpu --out DIR` writes; without it nothing was
measured.
"""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.summary import column, table

HERE = Path(__file__).parent
PAGE = HERE / "BENCHMARKS.md"

HEAD = """\
# Benchmarks

Made by `python -m tests.benchmarks.page` from the JSON files here, each of which says with which
command and on which machine it was made. Medians of at least five alternating repeats, with the
smallest and largest in brackets, unless a row says otherwise. {gpu}

| figure | target | measured, CPU | GPU | file |
|---|---|---|---|---|
"""

NO_GPU = """\
No GPU has been measured:
that column says so until one is, by `python -m tests.benchmarks.gpu --out DIR`."""
LIMITS = "\n## What falls short, and why\n\n"


def load(name: str) -> dict[str, Any]:
    """The results of one benchmark."""
    result: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return result


def spread(of: dict[str, float], digits: int = 2, unit: str = "") -> str:
    """A median with its least and most."""
    median, least, most = (f"{of[name]:.{digits}f}" for name in ("median", "least", "most"))
    return f"{median}{unit} ({least} to {most})"


def share(of: dict[str, float]) -> str:
    """The same in per cent."""
    return spread({name: 100 * value for name, value in of.items()}, 1, " %")


def gpu_state() -> dict[str, Any] | None:
    """The figures of a GPU, if one was measured."""
    state = load("gpu") if (HERE / "gpu.json").exists() else None
    return None if state is None or state["tiny"] else state


def row(figure: str, target: str, measured: str, file: str, gpu: str = "") -> str:
    """A line of the table.

    Args:
        gpu: Key of tests.benchmarks.gpu.summary.column, if a GPU's figure is comparable.
    """
    state = gpu_state()
    there = column(state).get(gpu, "not measured") if state else "not measured"
    return f"| {figure} | {target} | {measured} | {there} | [{file}]({file}.json) |"


def against_nanogpt() -> list[str]:
    """Training speed beside nanoGPT's train.py, a row for each vocabulary and precision."""
    result = load("against_nanogpt")
    targets = {
        (4096, "float32"): "at least 1.3 x",
        (4096, "bfloat16"): "at least 1.8 x",
        (50257, "float32"): "",
        (50257, "bfloat16"): "at least 2.5 x",
    }
    rows = []
    for case in result["comparisons"]:
        for dtype in ("float32", "bfloat16"):
            what = (
                f"training tokens/s in {dtype} over nanoGPT's `train.py` (float32 on a CPU), "
                f"V = {case['vocab_size']}, dropout {case['dropout']:g}"
            )
            ratio = spread(case["ratio_to_nanogpt"][f"ours {dtype}"], 2, " x")
            gpu = f"over nanogpt, V = {case['vocab_size']}" if dtype == "bfloat16" else ""
            target = targets[case["vocab_size"], dtype]
            rows.append(row(what, target, ratio, "against_nanogpt", gpu))
    return rows


def of_losses() -> list[str]:
    """Squentropy's speed, and the share of evaluation."""
    result = load("trial_parts")
    ratios = result["squentropy_to_cross_entropy"]
    shares = result["evaluation_share_summary"]
    return [
        row(
            f"training tokens/s of squentropy over cross-entropy, {result['dtype']}",
            "at least 0.97 x",
            spread(ratios, 2, " x"),
            "trial_parts",
            "squentropy",
        ),
    ] + [
        row(
            f"evaluation (all yardsticks) as a share of a trial, {name.replace('_', '-')}",
            "at most 10 %",
            share(of),
            "trial_parts",
            f"evaluation, {name}",
        )
        for name, of in shares.items()
    ]


def of_other_tools() -> list[str]:
    """Whole sweeps beside those that a user would write with other tools."""
    result = load("other_tools")
    trials = f"{result['trials']} trials of `tinystories` ({result['budget']})"
    runs, interval = f"{len(result['seeds'])} runs", result["eval_interval"]
    rows = []
    for ratios in result["ratios"]:
        tools = f"{ratios['of']} over {ratios['to']}, medians of {runs}"
        what = f"{trials}, wall time to the same perplexity: {tools}"
        to_the_same = spread(ratios["seconds_to_the_same_perplexity"], 2, " x")
        rows.append(row(what, "at most 0.4 x", to_the_same, "other_tools"))
        if ratios["of"] != "squen-sweep":
            continue  # other first weights change nothing of the rest
        rows += [
            row(what, "", spread(ratios[figure], 2, " x"), "other_tools")
            for what, figure in (
                ("the same to the end of all trials", "seconds"),
                (
                    f"the same for every {interval} steps that were trained and evaluated",
                    "seconds_of_an_evaluation",
                ),
            )
        ]
    orchestration = share(result["orchestration_share"])
    what = f"orchestration as a share of squen-sweep's slots, medians of {runs}"
    return [*rows, row(what, "at most 5 %", orchestration, "other_tools")]


def of_sweeps() -> list[str]:
    """Slots, starts, storage."""
    slots, startup = load("slots"), load("startup")["summary"]
    storage = load("ask_and_prune")
    plan = slots["ratio_to_one_trial_with_all_threads"]
    (best, times), *_ = sorted(plan.items(), key=lambda item: -item[1])
    few, many = storage["summary"].values()
    return [
        row(
            f"tokens/s of all slots, {best}, over one trial with all threads",
            "at least 1.3 x",
            f"{times:.2f} x",
            "slots",
            "slots",
        ),
        row(
            "`run` to the first training step, text prepared",
            "at most 6 s",
            spread(startup["first step"], 1, " s"),
            "startup",
            "first step",
        ),
        row("`squen-sweep --help`", "at most 0.4 s", spread(startup["help"], 2, " s"), "startup"),
        row(
            "ask, store and report 10 evaluations, look at the pruner, tell; 1,000 stored trials: "
            "wall",
            "at most 100 ms",
            spread(few["wall"], 0, " ms"),
            "ask_and_prune",
        ),
        row(
            "the same on the CPU",
            "at most 100 ms",
            spread(few["cpu"], 0, " ms"),
            "ask_and_prune",
        ),
        row(
            "the same with 10,000, on the CPU: growth",
            "at most 10 x",
            f"{storage['growth_of_cpu']:.1f} x, {spread(many['cpu'], 0, ' ms')}",
            "ask_and_prune",
        ),
    ]


def of_scale() -> list[str]:
    """A thousand trials at a time, ten thousand in a study, more slots than one."""
    measured = load("scale")
    many = measured["concurrent"]
    at_a_time = f"{many['trials_at_a_time']:,} stand-in trials at a time, an evaluation every 10 s"
    delay = many["seconds_until_an_evaluation_is_stored"]
    cpu = many["cpu_milliseconds_of_ask_10_evaluations_and_tell"]
    rows = [
        row(
            f"{at_a_time}, for {many['seconds'] / 60:.0f} minutes: from an event to the database",
            "at most 5 s",
            f"{delay['median']:.1f} s, 95 % in {delay['p95']:.1f} s, all in {delay['most']:.1f} s",
            "scale",
        ),
        row(
            "the same: the tuner's share of a core, its memory",
            "at most one core",
            f"{many['share_of_a_core']:.2f}, {many['megabytes']} MB",
            "scale",
        ),
        row("the same: ask, 10 evaluations, tell; CPU", "at most 100 ms", f"{cpu:.0f} ms", "scale"),
    ]
    plans = load("parallel")["plans"]
    return rows + [
        row(
            f"{name}: idle slots of a sweep of 64 trials, log perplexity above the best, simulated",
            "",
            f"{100 * of['idle_share']:.0f} %, {of['regret']:.3f}",
            "parallel",
        )
        for name, of in plans.items()
    ]


def of_searches() -> list[str]:
    """What a search finds in how many trials, and how near to the processor's limit one trains."""
    plans = load("samplers")["median_and_0.1_and_0.9_quantile_of_perplexity_after_trials_of_an_arm"]
    names = {"gp, 4 Sobol points": "10", "tpe, 8 Sobol points": "20"}
    found = [
        row(
            f"perplexity of the best setting after {after} trials of an arm, {plan}, simulated: "
            f"{arm.replace('_', '-')}",
            "",
            spread(dict(zip(("median", "least", "most"), arms[after], strict=True)), 2),
            "samplers",
        )
        for plan, after in names.items()
        for arm, arms in plans[plan].items()
    ]
    found += [
        row(
            f"perplexity with first weights of std 0.07 over that with 0.02: {where}",
            "",
            spread(of, 2, " x"),
            "init_std",
        )
        for where, of in load("init_std")["ratio_of_0.07_to_0.02"].items()
    ]
    limits = load("roofline")["summary"]
    return found + [
        row(
            f"training FLOP/s of a `tinystories` trial over one core's largest, {dtype}",
            "",
            share(of["share_of_peak"]),
            "roofline",
        )
        for dtype, of in limits.items()
    ]


def of_gpu_readiness() -> list[str]:
    """Figures that stand for a GPU's where there is none."""
    memory = load("memory")["summary"]
    counted = load("launches")
    waits = {
        when: sum(counted[when]["2 layers"]["waits_of_a_step"].values())
        for when in ("before", "after")
    }
    return [
        row(
            "memory of tensors, estimated before a run, over that allocated, 24 shapes",
            "0.85 to 1.15 x",
            spread(memory["estimate_to_tensors"], 2, " x"),
            "memory",
            "memory",
        ),
        row(
            "memory of the process, likewise, over its largest size",
            "0.85 to 1.15 x",
            spread(memory["estimate_to_process"], 2, " x"),
            "memory",
        ),
        row(
            "numbers that a step waits for before the next may be launched",
            "0",
            f"{waits['after']} ({waits['before']} before)",
            "launches",
        ),
    ]


def of_stacked() -> list[str]:
    """Several models as one: the CPU time of a token, and what is launched."""
    result = load("stacked")
    many, counted = len(result["cases"]), result["launches_of_a_model_and_step"]["n_layer 4"]
    rows = [
        row(
            f"CPU time of a token, {name.removeprefix('K = ')} models as one batched model over "
            f"one by one, a prototype: medians of {many} cases",
            "at most 1 x",
            spread(result["summary"][name], 2, " x"),
            "stacked",
        )
        for name in ("K = 2", "K = 4", "K = 8")
    ]
    fewer = ", ".join(f"{count:.0f} with {name}" for name, count in counted.items() if "=" in name)
    what = "operators that a model's step launches, 4 layers, K models as one"
    return [*rows, row(what, "", f"{counted['one by one']:.0f} alone, {fewer}", "stacked")]


def page() -> str:
    """The whole text."""
    rows = [*against_nanogpt(), *of_losses(), *of_other_tools(), *of_sweeps(), *of_scale()]
    rows += [*of_searches(), *of_gpu_readiness(), *of_stacked()]
    limits = (HERE / "limits.md").read_text()
    state = gpu_state()
    text = HEAD.format(gpu=_machine(state) if state else NO_GPU) + "\n".join(rows) + "\n"
    if state:
        text += f"\n## On a GPU\n\n[gpu](gpu.json), `{state['command']}`\n\n{table(state)}"
    return text + LIMITS + limits


def _machine(state: dict[str, Any]) -> str:
    facts = state["machine"]
    return f"The GPU: {facts['device']} with torch {facts['torch']}."


if __name__ == "__main__":
    PAGE.write_text(page())
