"""Rows of a GPU's figures, for the terminal and for BENCHMARKS.md."""

from typing import Any

Row = tuple[str, str]


def rows(state: dict[str, Any]) -> list[Row]:
    """The figures that a file has, in words; what was not measured is left out."""
    parts = state["parts"]
    found = [*_correctness(parts), *_training(parts), *_others(parts)]
    return [*found, *_trials(parts)]


def table(state: dict[str, Any]) -> str:
    """The same as lines of Markdown."""
    lines = [f"| {figure} | {value} |" for figure, value in rows(state)]
    return "\n".join(["| figure | measured |", "|---|---|", *lines]) + "\n"


def column(state: dict[str, Any]) -> dict[str, str]:
    """The figures that the rows of the CPU have as well, by the keys that `page` gives them."""
    parts = state["parts"]
    found = {}
    for name, case in parts.get("training", {}).get("cases", {}).items():
        if "ratio_to_nanogpt" in case:
            found[f"over nanogpt, V = {case['vocab_size']}"] = (
                f"{case['ratio_to_nanogpt']:.2f} x ({name})"
            )
        if "squentropy_to_cross_entropy" in case and case["vocab_size"] == 4096:
            found["squentropy"] = f"{case['squentropy_to_cross_entropy']:.2f} x"
    for loss, case in parts.get("evaluation", {}).get("losses", {}).items():
        found[f"evaluation, {loss}"] = f"{100 * case['share_of_a_trial']:.1f} %"
    at_a_time = parts.get("trials", {}).get("at_a_time", {})
    if at_a_time:
        best = max(at_a_time, key=lambda n: at_a_time[n]["trials_per_hour"])
        ratio = at_a_time[best]["trials_per_hour"] / at_a_time["1"]["trials_per_hour"]
        found["slots"] = f"{ratio:.2f} x ({best} at a time)"
    shapes = parts.get("memory", {}).get("shapes", {})
    if shapes:
        ratios = [shape["estimate_to_tensors"] for shape in shapes.values()]
        found["memory"] = f"{min(ratios):.2f} to {max(ratios):.2f} x"
    start = parts.get("start", {})
    if "warm" in start:
        found["first step"] = f"{start['warm']:.1f} s (compiled before)"
    return found


def _correctness(parts: dict[str, Any]) -> list[Row]:
    checks = parts.get("correctness", {}).get("checks", {})
    if not checks:
        return []
    failed = [name for name, result in checks.items() if not result["passed"]]
    tests = parts.get("tests", {}).get("last_line", parts.get("tests", {}).get("ended", "not run"))
    return [
        ("checks that passed", f"{len(checks) - len(failed)} of {len(checks)}"),
        *((f"failed: {name}", str(checks[name]["found"])) for name in failed),
        ("tests marked gpu", tests),
        ("two processes", parts.get("processes", {}).get("result", "not run")),
    ]


def _training(parts: dict[str, Any]) -> list[Row]:
    found = []
    for name, case in parts.get("training", {}).get("cases", {}).items():
        for how, rate in case["tokens_per_second"].items():
            mfu = case.get("mfu", {}).get(how)
            of_peak = f", {100 * mfu:.1f} % of the measured peak" if mfu else ""
            found.append((f"training tokens/s, {name}, {how}", f"{rate:,.0f}{of_peak}"))
        if "ratio_to_nanogpt" in case:
            found.append((f"over compiled nanoGPT, {name}", f"{case['ratio_to_nanogpt']:.2f} x"))
        if "squentropy_to_cross_entropy" in case:
            ratio = case["squentropy_to_cross_entropy"]
            found.append((f"squentropy over cross-entropy, {name}", f"{ratio:.2f} x"))
    return found


def _others(parts: dict[str, Any]) -> list[Row]:
    found = []
    for name, case in parts.get("memory", {}).get("shapes", {}).items():
        found.append(
            (
                f"memory, {name}: estimate over measured peak",
                f"{case['estimate_to_tensors']:.2f} x of {case['tensors_mb']:,.0f} MB",
            )
        )
    for name, case in parts.get("head", {}).get("cases", {}).items():
        for how, one in case.items():
            value = f"{one['milliseconds']:.2f} ms, {one['megabytes']:,.0f} MB"
            found.append((f"head forward and backward, {name}, {how}", value))
    for loss, case in parts.get("evaluation", {}).get("losses", {}).items():
        value = f"{case['seconds']:.3f} s, {100 * case['share_of_a_trial']:.1f} % of a trial"
        found.append((f"an evaluation, {loss}", value))
    return found


def _trials(parts: dict[str, Any]) -> list[Row]:
    found = []
    for n, case in parts.get("trials", {}).get("at_a_time", {}).items():
        value = f"{case['trials_per_hour']:.1f}, {case['tokens_per_second']:,.0f} tokens/s in all"
        found.append((f"trials an hour, {n} at a time", value))
    names = {"uncompiled": "not compiled", "cold": "compiled, cold cache", "warm": "warm cache"}
    start = parts.get("start", {})
    for key, words in names.items():
        if key in start:
            found.append((f"start to first step, {words}", f"{start[key]:.1f} s"))
    return found
