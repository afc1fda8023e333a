"""A study whose trials take a second, for the tests of the tuner, reports and commands."""

from pathlib import Path

from sweep.callbacks.plain import PlainProgress, QuietProgress
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from sweep.tuner.callback import Callback
from sweep.tuner.limits import Clock, Limits
from sweep.tuner.options import RunOptions
from sweep.tuner.run import run
from sweep.tuner.summary import Summary

STUDY = """
name = "tiny"
description = "Seconds on a CPU."
question = "Does it run?"
compare = "loss"

[data]
source = "{text}"
tokenizer = "bpe"
bpe_vocab_size = 280

[train]
block_size = 16
n_head = 2
n_embd = 16
batch_size = {batch_size}
warmup_steps = 2
max_steps = {max_steps}
eval_interval = {eval_interval}
eval_tokens = 200

[search.learning_rate]
low = {lowest}
high = {highest}
log = true

[search.n_layer]
low = 1
high = 2

[search.loss]
choices = ["cross_entropy", "squentropy"]

[[baselines]]
name = "usual"
params = {{ learning_rate = {baseline}, n_layer = 1 }}

[sampler]
startup_trials = 2

[pruner]
kind = "{pruner}"
startup_trials = 2
"""


def tiny_study(
    folder: Path,
    text: Path,
    max_steps: int = 12,
    eval_interval: int = 4,
    lowest: float = 1e-3,
    highest: float = 1e-2,
    baseline: float = 5e-3,
    pruner: str = "none",
    batch_size: int = 4,
) -> StudySpec:
    """The study above, read from a file in `folder`."""
    path = folder / "tiny.toml"
    path.write_text(
        STUDY.format(
            text=text,
            max_steps=max_steps,
            eval_interval=eval_interval,
            lowest=lowest,
            highest=highest,
            baseline=baseline,
            pruner=pruner,
            batch_size=batch_size,
        )
    )
    return read_study_file(str(path), "cpu")


def run_tiny(
    spec: StudySpec,
    folder: Path,
    trials: int,
    workers: int = 2,
    runs: Path | None = None,
    limits: Limits | None = None,
    wait: bool = False,
    callback: Callback | None = None,
    clock: Clock | None = None,
    storage: str | None = None,
    backend: str = "local",
    sbatch: tuple[str, ...] = (),
    ray_address: str | None = None,
) -> Summary:
    """Run the study, by default with its storage and its runs in `folder`."""
    options = RunOptions(
        storage=storage or str(folder / "sweep.db"),
        runs=runs or folder / "runs",
        device="cpu",
        workers=workers,
        backend=backend,
        sbatch=sbatch,
        ray_address=ray_address,
        limits=limits or Limits(),
        wait=wait,
    )
    callback = callback or (PlainProgress() if wait else QuietProgress())
    return run(spec, spec.data, options, callback, trials=trials, clock=clock)
