"""The way from a sweep of a small model to one of eight times its size, on real stories.

    python -m tests.benchmarks.small_to_big STORIES FOLDER

runs in FOLDER the commands of sweep/export/README.md: what the transfer check predicts of a long
run, and what comes. Rerun to resume. An hour and a half on two cores.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpt.events import evaluation_of, read_events
from tests.benchmarks import measuring

STUDY, NAME = Path(__file__).with_suffix(".toml"), "small"
STEPS = (14000,)  # of the long runs; a trial of the sweep has 600
SHAPE = "n_layer=4,n_embd=160"


def squen(folder: Path, *words: str) -> str:
    """Run a command as a user does; return what it prints."""
    command = [sys.executable, "-m", "sweep", *words]
    print(" ".join(["squen-sweep", *words]), flush=True)
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


def path_to(folder: Path, steps: int) -> dict[str, Any]:
    """Check the transfer to a long run, make it, and return both."""
    scale = f"{SHAPE},steps={steps}"
    words = ("--study", NAME, "--top", "2", "--scale", scale, "--json")
    *_, last = _documents(squen(folder, "transfer", *words))
    run_dir = folder / "runs" / "final" / str(steps)
    squen(folder, "train", "best.toml", "--scale", scale, "--out", str(run_dir))
    ends = [evaluation_of(e) for e in read_events(run_dir)[0] if e["event"] == "evaluation"]
    best = str(last["trials"][0])
    return {
        "scale": scale,
        "compute": [size["compute"] for size in last["sizes"]],
        "nats": [size["nats"][best] for size in last["sizes"]],
        "noise": last["noise"],
        "correlations": last["correlations"],
        "predicted": last["predictions"][best],
        "came": ends[-1].cross_entropy,
    }


def _documents(text: str) -> list[dict[str, Any]]:
    """Read the JSON documents of a text, one after another."""
    decoder, found = json.JSONDecoder(), []
    text = text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found


def main(stories: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    squen(folder, "run", "--study", str(STUDY), "--trials", "20", "--data", stories, "--quiet")
    squen(folder, "export", "--study", NAME, "-o", "best.toml")
    paths = [path_to(folder, steps) for steps in STEPS]
    measuring.write("small_to_big", {"paths": paths}, "STORIES FOLDER")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
