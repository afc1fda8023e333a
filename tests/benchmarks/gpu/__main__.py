"""Measure a GPU: is it right, then how fast; one command, one tree of processes.

    python -m tests.benchmarks.gpu --out DIR [--minutes 8] [--nanogpt CHECKOUT]

Needs gpt/ and what it imports: torch 2.6 or later, numpy, pydantic, filelock, safetensors, psutil.
DIR/PART.json is written anew after every figure and DIR/gpu.json after every part, so that a time
limit loses nothing; put gpu.json into tests/benchmarks, and `page` fills its GPU column. Parts come
in the order of their worth, each in a process of its own and with its share of the minutes; one
that ends late or badly is noted, and the next begins. nanoGPT's loop is written out in parts.py;
with a CHECKOUT its own train.py is measured too. `--device cpu --tiny` tries the command itself
where there is no GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NEEDED = ("torch", "numpy", "pydantic", "filelock", "safetensors", "psutil")
# Shares of the time, in the order of their worth: correctness first.
SHARES = {
    "machine": 4,
    "correctness": 16,
    "tests": 10,
    "processes": 5,
    "training": 18,
    "memory": 5,
    "head": 6,
    "evaluation": 5,
    "trials": 20,
    "start": 12,
}
WORST_SHARE = 2.0  # a part may take so many times its share while time is left for it


def main() -> int:
    """Measure all parts, or, as a child, one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--nanogpt", type=Path, metavar="CHECKOUT")
    parser.add_argument("--tiny", action="store_true", help="models that a CPU trains in seconds")
    parser.add_argument("--only", choices=SHARES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"these packages must be installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    if args.only:
        from tests.benchmarks.gpu.parts import run_part

        run_part(args.only, args.out, args.device, args.nanogpt, args.tiny)
        return 0
    import torch

    if args.device != "cpu" and torch.cuda.device_count() == 0:
        print("torch sees no CUDA device; --device cpu --tiny tries the command", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    return _measure_all(args)


def _measure_all(args: argparse.Namespace) -> int:
    end = time.monotonic() + 60 * args.minutes
    command = f"python -m tests.benchmarks.gpu {' '.join(sys.argv[1:])}"
    state: dict[str, Any] = {"command": command, "tiny": args.tiny, "machine": {}, "parts": {}}
    for name, share in SHARES.items():
        left = end - time.monotonic()
        limit = min(left, WORST_SHARE * 60 * args.minutes * share / sum(SHARES.values()))
        state["parts"][name] = _part(name, args, limit) if left > 1 else {"ended": "no time left"}
        _write(args.out, state)
        print(f"{name}: {state['parts'][name]['ended']}", flush=True)
    from tests.benchmarks.gpu.summary import table

    print("\n" + table(state))
    return 1 if _failures(state) else 0


def _part(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run a part in a process of its own; return its figures and how it ended."""
    file = args.out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--only", name]
    command += ["--out", str(args.out), "--device", args.device]
    command += ["--nanogpt", str(args.nanogpt.resolve())] if args.nanogpt else []
    command += ["--tiny"] if args.tiny else []
    started = time.monotonic()
    with (args.out / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            code = child.wait(limit)
            ended = "complete" if code == 0 else f"exit code {code}: {_last_line(args.out, name)}"
        except subprocess.TimeoutExpired:
            ended = f"cut off after {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # and what it has started
            child.wait()
    figures = json.loads(file.read_text()) if file.exists() else {}
    return {"ended": ended, "seconds": round(time.monotonic() - started, 1), **figures}


def _last_line(out: Path, name: str) -> str:
    lines = (out / f"{name}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _failures(state: dict[str, Any]) -> list[str]:
    checks = state["parts"].get("correctness", {}).get("checks", {})
    return [name for name, result in checks.items() if not result["passed"]]


def _write(out: Path, state: dict[str, Any]) -> None:
    machine = state["parts"].get("machine", {}).get("machine", {})
    whole = {**state, "machine": machine}
    temporary = out / ".gpu.json"
    temporary.write_text(json.dumps(whole, indent=1) + "\n")
    temporary.replace(out / "gpu.json")


if __name__ == "__main__":
    sys.exit(main())
