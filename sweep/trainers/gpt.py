"""The built-in GPT as a trainer: `python -m gpt.train RUN_DIR` on a config.json."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpt import checkpoint
from gpt.config import DataConfig, TrainConfig, read_config
from gpt.data.dataset import prepare
from gpt.errors import DataError
from gpt.events import Event, parse_event
from gpt.model import num_params
from gpt.system.files import atomic_write_text
from sweep.study.dataset import data_facts, described, pin_dataset, source_facts
from sweep.study.spec import StudySpec
from sweep.trainers.base import Facts, RunFacts

# Of a run that exists: where its text is, and the micro-batch that its memory sufficed for.
MAY_DIFFER = ("data", "device", "threads", "batch_size", "gradient_accumulation_steps")


class GPTTrainer:
    """Runs of gpt.train.

    Args:
        data: The text; `check` pins it to the tokens that it finds.
    """

    module: str | None = "gpt.train"

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._spec: StudySpec

    def settle(self, spec: StudySpec, stored: Mapping[str, Any] | None, device: str) -> StudySpec:
        """Return the study with its dtype: the one that it was started with, or the faster one."""
        if not spec.leaves_dtype_open:
            return spec
        settled = stored["train"].get("dtype") if stored else None
        return spec.with_dtype(settled or faster_dtype(device))

    def check(self, spec: StudySpec, show: Callable[[str], None]) -> Facts:
        """Prepare the tokens of the text.

        Raises:
            InputError: the text is not there, or too short.
        """
        self._spec = spec
        tokens = prepare(self._data, show)
        tokens.require(spec.block_size)
        facts = data_facts(tokens, spec)
        self._data = pin_dataset(self._data, tokens)
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
            config, moved = None, self._spec.train_config(params, self._data, device, threads)
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

    def command(self, run_dir: Path) -> tuple[str, ...]:
        """Return the command that trains a run directory, or continues it."""
        return (sys.executable, "-P", "-m", "gpt.train", str(run_dir.resolve()))

    def parse(self, line: bytes) -> Event | None:
        """Parse a line of events.jsonl."""
        return parse_event(line)

    def tidy(self, run_dir: Path) -> None:
        """Remove temporary files of checkpoints."""
        checkpoint.tidy(run_dir)

    def _refuse_another_run(
        self, config: TrainConfig, params: Mapping[str, Any], run_dir: Path
    ) -> None:
        expected = self._spec.train_config(params, self._data, config.device, config.threads)
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
    """
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    describe = getattr(torch.cpu, "get_capabilities", dict)  # not in older versions of torch
    has: Mapping[str, Any] = describe()
    return "bfloat16" if has.get("avx512_bf16") or has.get("amx_bf16") else "float32"


def _write_config(run_dir: Path, config: TrainConfig) -> None:
    atomic_write_text(run_dir / "config.json", config.model_dump_json(indent=1))
