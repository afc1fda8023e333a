"""Plan of a study before it runs: its trials, its models, and what they take on this machine."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from gpt.config import TrainConfig
from gpt.data import corpus
from gpt.data.files import find
from gpt.model import num_params
from sweep.backends.base import Slot
from sweep.study.format import duration, number, unseen
from sweep.study.program import TrainerSpec
from sweep.study.search_space import Parameter
from sweep.study.spec import GPT2_VOCAB_SIZE, StudySpec
from sweep.trainers.registry import trainer_of
from sweep.tuner.options import RunOptions

# Fields of TrainConfig, besides n_layer, on which a trial's time and memory depend.
SIZES = ("n_embd", "n_head", "block_size", "batch_size", "gradient_accumulation_steps")


@dataclass(frozen=True)
class Depth:
    """The models of one depth: as small and as large as they may be drawn."""

    n_layer: int
    smallest: TrainConfig
    largest: TrainConfig


def plan_of(spec: StudySpec, options: RunOptions, trials: int) -> Iterator[tuple[str, str]]:
    """Yield the plan of a study as pairs of a name and words; it measures for some seconds.

    Args:
        spec: Resolved for the kind of device.
        options: With the device, and how many trials run at a time.
        trials: Total of the study.

    Raises:
        InputError: the device, the text or the program is not there.
    """
    backend = options.make_backend(spec.resources)
    backend.check()
    slots = backend.capacity()
    trainer = trainer_of(spec, spec.data)
    spec = trainer.settle(spec, None, [slot.device for slot in slots])
    text = _text(spec) if spec.trainer is None else trainer.check(spec, unseen).description
    yield "study", spec.name
    if spec.question:
        yield "question", spec.question
    yield "trials", _trials(spec, trials)
    yield "searched", "; ".join(f"{name} {_range(p)}" for name, p in spec.search.items())
    yield "pruning", _pruning(spec)
    if spec.trainer is None:
        yield "text", text
        yield from _of_models(spec, slots, trials)
    else:
        yield "program", text
        yield from _of_program(spec.trainer, slots)


def _of_program(program: TrainerSpec, slots: list[Slot]) -> Iterator[tuple[str, str]]:
    """Yield what is known of a program without running it."""
    yield "command", shlex.join(program.command)
    metric = program.metric
    how = "lines that it prints" if metric.pattern else "lines of its events.jsonl"
    yield "metric", f"{metric.name}, to {metric.direction}, from {how}"
    if program.max_steps:
        yield "a trial", f"{program.max_steps:,} steps"
    yield "machine", f"{_machine(slots)}; how long a trial takes, the program alone knows"


def _machine(slots: list[Slot]) -> str:
    devices = ", ".join(sorted({slot.device for slot in slots}))
    return f"{len(slots)} at a time on {devices}, {slots[0].threads} CPU thread(s) each"


def _of_models(spec: StudySpec, slots: list[Slot], trials: int) -> Iterator[tuple[str, str]]:
    depths = depths_of(spec, slots[0])
    first, last = depths[0].smallest, depths[-1].largest
    tokens = _between(*sorted(c.max_steps * c.tokens_per_step for c in (first, last)))
    evaluations = -(-first.max_steps // first.eval_interval)
    yield (
        "a trial",
        f"{first.max_steps:,} steps, {tokens} tokens, "
        f"{evaluations} evaluations of {first.eval_tokens:,} tokens",
    )
    yield "machine", f"{_machine(slots)}, {first.dtype}"
    from sweep.trainers.estimate import measure  # imports torch

    least, most = measure(first), measure(last)
    span = max(1, depths[-1].n_layer - depths[0].n_layer)
    seconds = []
    for depth in depths:
        share = (depth.n_layer - depths[0].n_layer) / span if len(depths) > 1 else 0.5
        seconds.append(least.seconds + share * (most.seconds - least.seconds))
        weights = _between(num_params(depth.smallest), num_params(depth.largest))
        layers = "1 layer" if depth.n_layer == 1 else f"{depth.n_layer} layers"
        yield layers, f"{weights} parameters, {duration(seconds[-1])} a trial"
    memory = max(least.peak_memory_bytes, most.peak_memory_bytes) / 1e9
    yield "memory", f"about {memory:.1f} GB a trial, {memory * len(slots):.1f} GB at a time"
    total = sum(seconds) / len(seconds) * trials / min(len(slots), trials)
    compiled = ", and the time to compile is not in it" if first.compile else ""
    yield (
        "time",
        f"about {duration(total)} for {trials} trials with the machine as busy as now; "
        f"pruning makes it less{compiled}",
    )


def depths_of(spec: StudySpec, slot: Slot) -> list[Depth]:
    """List the depths that may be drawn; those of a long range by its ends."""
    layers = spec.search["n_layer"].values() if "n_layer" in spec.search else [spec.base("n_layer")]
    return [_depth(spec, slot, int(n_layer)) for n_layer in sorted(layers)]


def _depth(spec: StudySpec, slot: Slot, n_layer: int) -> Depth:
    sizes = {name: spec.search[name].values() for name in SIZES if name in spec.search}
    configs = []
    for arm, chosen in product(spec.arms, product(*sizes.values())):
        given = {"n_layer": n_layer, **dict(zip(sizes, chosen, strict=True))}
        params = spec.point(arm, partial(_value, given))
        configs.append(spec.train_config(params, spec.data, slot.device, slot.threads))
    configs.sort(key=lambda config: num_params(config) * config.tokens_per_step)
    return Depth(n_layer, configs[0], configs[-1])


def _value(given: dict[str, Any], name: str, parameter: Parameter) -> Any:
    return given.get(name, parameter.at(0.5))


def _trials(spec: StudySpec, trials: int) -> str:
    baselines, sampler = len(spec.baselines), spec.sampler
    each = -(-trials // len(spec.arms))
    counts = f"{trials}"
    if len(spec.arms) > 1:
        most = "up to " if trials % len(spec.arms) else ""
        counts += f", {most}{each} for each of {', '.join(spec.arms)}"
    first = min(baselines, each)
    points = min(sampler.startup_trials, each - first)
    kinds = [(first, "of a baseline"), (points, "at Sobol points")]
    kinds.append((each - first - points, f"by {sampler.kind}"))
    return counts + ": " + ", ".join(f"{count} {how}" for count, how in kinds if count)


def _range(parameter: Parameter) -> str:
    if parameter.choices is not None:
        return ", ".join(map(str, parameter.choices))
    ends = f"{number(parameter.low)} to {number(parameter.high)}"
    return ends + (", logarithmic" if parameter.log else "")


def _pruning(spec: StudySpec) -> str:
    if spec.pruner.kind == "none":
        return "none"
    return f"{spec.pruner.kind} of the arm, after {spec.pruner.warmup_fraction:.0%} of the steps"


def _text(spec: StudySpec) -> str:
    """Describe the text; only the names of its files are read."""
    data = spec.data
    source = data.source
    if source == "auto":
        source = "auto (the hub, or else the built-in stories)"
    if corpus.kind_of(data) == "files":
        files = find(Path(data.source))
        held_out = ", ".join(files.names(files.validation)) or "a part that is cut off"
        source += f" (trains on {', '.join(files.names(files.train))}, validates on {held_out})"
    most = "" if data.max_stories is None else f", at most {data.max_stories:,} training stories"
    own = f"{data.bpe_vocab_size or 0:,} tokens learnt from it"
    tokens = f"{GPT2_VOCAB_SIZE:,} tokens of GPT-2" if data.tokenizer == "gpt2" else own
    return f"{source}{most}, {tokens}"


def _between(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
