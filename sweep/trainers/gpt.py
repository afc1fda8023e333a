"""The built-in GPT as a trainer: `python -m gpt.train RUN_DIR` on a config.json."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gpt import checkpoint
from gpt.config import DataConfig, TrainConfig, read_config
from gpt.data.dataset import prepare
from gpt.errors import DataError
from gpt.events import Evaluation, Event, evaluation_of, parse_event
from gpt.model import num_params
from gpt.optim import check_installed
from gpt.plugins.load import in_run_dir, with_plugins
from gpt.system.files import atomic_write_text
from sweep.study.dataset import data_facts, described, pin_dataset, source_facts
from sweep.study.external.plugins import load_spec_plugins
from sweep.study.spec import StudySpec
from sweep.trainers.base import Facts, RunFacts

DTYPES = ("float32", "float16", "bfloat16")  # of the weakest GPU first
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
# Of a run that exists: where its text is, and the micro-batch that its memory sufficed for.
MAY_DIFFER = ("data", "device", "threads", "batch_size", "gradient_accumulation_steps")


class GPTTrainer:
    """Runs of gpt.train.

    Args:
        data: The text; `check` pins it to the tokens that it finds.
    """

    module: str | None = "gpt.train"
    tokens: Path | None = None  # until `check` has found them

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._spec: StudySpec
        self._device, self._faster = "cpu", faster_dtype("cpu")

    def settle(
        self, spec: StudySpec, stored: Mapping[str, Any] | None, devices: Sequence[str]
    ) -> StudySpec:
        """Return the study with its dtype: the one that it was started with, or the faster one.

        Of several devices the weakest decides, since trials are compared with each other.
        """
        self._device = devices[0]
        self._faster = min(map(faster_dtype, devices), key=DTYPES.index)
        if not spec.leaves_dtype_open:
            return spec
        settled = stored["train"].get("dtype") if stored else None
        return spec.with_dtype(settled or self._faster)

    def check(self, spec: StudySpec, show: Callable[[str], None]) -> Facts:
        """Prepare the tokens of the text.

        Raises:
            InputError: an optimiser needs a package that is not installed, or the text is not
                there or too short.
        """
        load_spec_plugins(spec)
        self._spec = spec
        searched = spec.search.get("optimizer")
        for name in searched.values() if searched else [spec.base("optimizer")]:
            check_installed(name)
        if slow := slow_dtype(str(spec.base("dtype")), self._device, self._faster):
            show(slow)
        tokens = prepare(self._data, show)
        tokens.require(spec.block_size)
        facts = data_facts(tokens, spec)
        self._data, self.tokens = pin_dataset(self._data, tokens), tokens.folder
        return self.recall(spec, facts | source_facts(self._data))

    def recall(self, spec: StudySpec, data: dict[str, Any]) -> Facts:
        """Return the facts of a study that has all its trials, from what is stored of its text."""
        self._spec = spec
        return Facts(data, described(data), data["notice"], float(data["vocab_size"]))

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raise InputError unless these parameters make a run."""
        self._spec.train_config(params, self._data, "cpu", 1)

    def write(
        self, run_dir: Path, params: Mapping[str, Any], device: str, threads: int
    ) -> RunFacts:
        """Write config.json once; later, only the device and the path of the text may change.

        Raises:
            DataError: the directory holds the run of other parameters, as when a database was put
                back from a copy.
        """
        path = run_dir / "config.json"
        if path.exists():
            config = read_config(path)
            self._refuse_another_run(config, params, run_dir)
            moved = config.model_copy(update={"device": device, "data": self._data})
        else:
            run_dir.mkdir(parents=True, exist_ok=True)
            new = self._spec.train_config(params, self._data, device, threads)
            config, moved = None, with_plugins(new, Path(), run_dir)
        if moved != config:
            _write_config(run_dir, moved)
        return RunFacts(moved.max_steps, num_params(moved), moved.model_dump(mode="json"))

    def halve_memory(self, run_dir: Path) -> int | None:
        """Halve the micro-batch and double the forward passes of a step: the same training.

        Returns:
            The new batch_size; None where it cannot be halved.
        """
        config = read_config(run_dir / "config.json")
        if config.batch_size % 2:
            return None
        smaller = config.model_copy(
            update={
                "batch_size": config.batch_size // 2,
                "gradient_accumulation_steps": 2 * config.gradient_accumulation_steps,
            }
        )
        _write_config(run_dir, smaller)
        return smaller.batch_size

    def command(self, run_dir: Path, processes: int = 1) -> tuple[str, ...]:
        """Return the command that trains a run directory, or continues it."""
        launcher = () if processes == 1 else (*TORCHRUN, str(processes))
        return (sys.executable, "-P", *launcher, "-m", "gpt.train", str(run_dir.resolve()))

    def parse(self, line: bytes) -> Event | None:
        """Parse a line of events.jsonl."""
        return parse_event(line)

    def evaluation(self, event: Event) -> Evaluation:
        """Return what an `evaluation` event says."""
        return evaluation_of(event)

    def tidy(self, run_dir: Path) -> None:
        """Remove temporary files of checkpoints."""
        checkpoint.tidy(run_dir)

    def _refuse_another_run(
        self, config: TrainConfig, params: Mapping[str, Any], run_dir: Path
    ) -> None:
        expected = in_run_dir(
            self._spec.train_config(params, self._data, config.device, config.threads)
        )
        differing = [
            name
            for name in TrainConfig.model_fields
            if name not in MAY_DIFFER and getattr(config, name) != getattr(expected, name)
        ]
        if differing:
            raise DataError(
                f"{run_dir} must be the run of trial {run_dir.name}, but {', '.join(differing)} "
                f"differs; move that folder away and run the same command again."
            )


def faster_dtype(device: str) -> str:
    """Return the dtype of matrix products that is faster on a device, where a study leaves it open.

    bfloat16 where the device has instructions for it: on CPUs with AVX512-BF16 trials of the
    tinystories budget train 1.2 to 1.7 times as fast as in float32 (roofline.json and
    precision.json in tests/benchmarks). A CPU without them would convert every number first.
    GPUs with tensor cores but without bfloat16 (V100, T4) take float16. An Apple GPU takes float32:
    nobody has measured one yet. GPUs of a cluster, where this machine has none to ask, are taken to
    have bfloat16.
    """
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            return "bfloat16"
        # of this device: torch.cuda.is_bf16_supported speaks of the current one
        capability = torch.cuda.get_device_capability(torch.device(device))
        if torch.version.hip or capability >= (8, 0):
            return "bfloat16"
        return "float16" if capability >= (7, 0) else "float32"
    if device == "mps":
        return "float32"
    describe = getattr(torch.cpu, "get_capabilities", dict)  # not in older versions of torch
    has: Mapping[str, Any] = describe()
    return "bfloat16" if has.get("avx512_bf16") or has.get("amx_bf16") else "float32"


def slow_dtype(dtype: str, device: str, faster: str) -> str | None:
    """Return a warning where a device only emulates a study's dtype; None where it has it.

    A study that was started in bfloat16 goes on in it, also on a CPU without its instructions:
    there it trained 395 tokens/s where float32 trained 6,200 (4 layers of 128, 2 threads).

    Args:
        dtype: Of the study.
        device: Where it is to train.
        faster: See faster_dtype.
    """
    on_gpu = device != "cpu"
    if dtype in ("float32", faster) or (dtype == "float16" and on_gpu):
        return None
    kind = "GPU" if on_gpu else "CPU"
    return (
        f"dtype is {dtype}, which this {kind} has no instructions for: float32 may be ten times "
        f'as fast. Continue where the study was started, or start it anew with dtype = "auto" in '
        f"its file and --as NEW_NAME."
    )


def _write_config(run_dir: Path, config: TrainConfig) -> None:
    atomic_write_text(run_dir / "config.json", config.model_dump_json(indent=1))
