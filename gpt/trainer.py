"""The trainer: model, optimiser, data and counters, and one training step.

The loop over steps, with its log and checkpoints, is in gpt.train.
"""

import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt import checkpoint
from gpt.config import TrainConfig
from gpt.data.dataset import Batches, TokenData
from gpt.errors import DataError, DivergedError
from gpt.evaluate import Scores, hidden_states, metrics, score, temperature_perplexity
from gpt.events import Evaluation
from gpt.losses.fused_linear import linear_loss
from gpt.model import GPT, load_weights, num_params
from gpt.optim import OPTIMIZERS, SCHEDULES, Setup, check_installed
from gpt.optim.state import load_optimizer_state, optimizer_state
from gpt.system import distributed
from gpt.system.device import Readback, cannot_compile, to_device
from gpt.system.malloc import keep_freed_memory

# Up to so many weights a step takes CUDA less time than launching its kernels one by one takes
# Python: they are launched as one graph. An estimate: no GPU has confirmed it.
GRAPH_PARAMS = 10_000_000

# Fields that may differ between two starts of one run: its text, whose tokens have a fingerprint;
# its plugins, which have a SHA-256; how it is computed; its end; what is measured on the way.
MAY_CHANGE = {
    "data",
    "plugins",
    *("device", "threads", "compile", "batch_size", "gradient_accumulation_steps"),
    *("max_steps", "patience"),
    *("eval_interval", "eval_tokens", "eval_skip_tokens", "sample_interval"),
}


@dataclass
class Counters:
    """Progress of a run between two optimiser steps; saved with every checkpoint."""

    step: int = 0
    loss_sum: float = 0.0  # training loss, summed over the steps since the last evaluation
    steps_since_evaluation: int = 0
    seconds_since_evaluation: float = 0.0
    seconds: float = 0.0  # training and evaluation
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    best_step: int = 0  # the evaluation with the lowest cross-entropy; 0: none yet
    best_cross_entropy: float | None = None

    def out_of_patience(self, config: TrainConfig) -> bool:
        """Return True if so many evaluations were no new best that a run of `config` ends."""
        steps_without = self.step - self.best_step if self.best_step else 0
        return steps_without >= (config.patience or math.inf) * config.eval_interval


class Trainer:
    """A model in training, with all the state that a step changes and a checkpoint holds.

    Sets torch's thread count and random state.
    """

    def __init__(self, config: TrainConfig, data: TokenData) -> None:
        torch.set_num_threads(config.threads)
        if config.device == "cpu":
            keep_freed_memory()
        torch.manual_seed(config.seed)
        self.config = config
        self.device = distributed.local_device(config.device)
        self.model = GPT(config).to(self.device)
        self.optimizers = make_optimizers(self.model, config)
        half = config.dtype == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)  # else it does nothing
        rank, processes = distributed.rank(), distributed.world_size()
        # sequences in one forward pass and forward passes in one step of this process
        self.batch_size, self.accumulation_steps = distributed.share_of_batch(
            config.batch_size, config.gradient_accumulation_steps, processes
        )
        self.batches = Batches(
            data.train, config.block_size, self.batch_size, config.seed, rank, processes
        )
        self.validation = data.validation(
            config.block_size, config.eval_tokens, config.eval_skip_tokens
        )
        self.counters = Counters()
        self.scores: Scores | None = None  # of the last evaluation
        alone = distributed.world_size() == 1
        self.not_compiled = cannot_compile(self.device) if config.compile else None  # a reason
        compiles = config.compile and self.not_compiled is None
        # An option that changes from step to step would be compiled anew each time.
        with_loss = compiles and alone and config.loss_schedule == "constant"
        compiled = torch.compile(self.model) if compiles and not with_loss else self.model
        example = torch.zeros(self.batch_size, config.block_size, dtype=torch.int64)
        with self.autocast():
            self.hidden = distributed.averaging_gradients(compiled, example.to(self.device))
        self.loss = self._compiled_loss() if with_loss else self._loss
        self.reads_late = self.device.type == "cuda" and alone and not half
        self._unread: tuple[int, Readback] | None = None  # loss and norm of the step made last

    def autocast(self) -> AbstractContextManager[object]:
        """Context for matrix products in config.dtype; weights, sums and optimiser stay float32."""
        if self.config.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.config.dtype))

    def step(self) -> None:
        """Make one optimiser step.

        Raises:
            DivergedError: the loss or the gradient is not finite; weights are as before. Where
                they are read late, those of the step before are meant, and weights are lost.
        """
        started, config, counters = time.perf_counter(), self.config, self.counters
        distributed.seed_step(config.seed, counters.step)
        counters.learning_rate = learning_rate_at(counters.step, config)
        set_learning_rate(self.optimizers, counters.learning_rate)
        loss = self._backward()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip or math.inf)
        self.settle()  # by now the device has work: it does not wait while Python does
        self._unread = counters.step, Readback(loss, norm, device=self.device)
        overflow = False if self.reads_late else self.settle()
        for optimizer in self.optimizers:
            if not overflow:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        counters.step += 1
        counters.steps_since_evaluation += 1
        if self.at_evaluation:
            self.settle()
        seconds = time.perf_counter() - started
        counters.seconds += seconds
        counters.seconds_since_evaluation += seconds

    def settle(self) -> bool:
        """Read loss and gradient norm of the last step, unless they have been read.

        Returns:
            True where the gradient is too large for float16 at this scale: the step is to be left
            out, and the next scale is smaller.

        Raises:
            DivergedError: one of them is not finite.
        """
        if self._unread is None:
            return False
        (step, numbers), self._unread = self._unread, None
        loss, norm = numbers.read()
        loss = distributed.mean(loss)
        overflow = not math.isfinite(norm) and self.scaler.is_enabled() and self._loss_scale > 1
        if not (math.isfinite(loss) and (math.isfinite(norm) or overflow)):
            raise DivergedError(
                step,
                f"training loss {loss:g}, gradient norm {norm:g} after step {step} "
                f"at learning rate {learning_rate_at(step, self.config):.3g}",
            )
        self.counters.loss_sum += loss
        if not overflow:
            self.counters.grad_norm = norm
        return overflow

    def _backward(self) -> Tensor:
        """Accumulate gradients over one step's micro-batches; return the mean loss, a scalar."""
        exact = torch.float32 if self.device.type == "mps" else torch.float64  # mps has none
        total = torch.zeros((), dtype=exact, device=self.device)
        options = self.config.loss_options_at(self.counters.step)
        for left in reversed(range(self.accumulation_steps)):
            idx, targets = (to_device(x, self.device) for x in next(self.batches))
            with distributed.accumulating(self.hidden, more=left > 0):
                with self.autocast():
                    loss = self.loss(idx, targets, options)
                loss = loss / self.accumulation_steps
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    @property
    def _loss_scale(self) -> float:
        return float(self.scaler.get_scale())

    def _loss(self, idx: Tensor, targets: Tensor, options: dict[str, float]) -> Tensor:
        """Compute the training loss of a micro-batch (B, T), a scalar."""
        return linear_loss(
            self.hidden(idx).flatten(0, 1),
            self.model.lm_head.weight,
            targets.flatten(),
            self.config.loss,
            **options,  # type: ignore[arg-type]  # none is called as another argument is
        )

    def _compiled_loss(self) -> Callable[[Tensor, Tensor, dict[str, float]], Tensor]:
        """Compile model, head and loss as one graph; a small one is launched at once on CUDA."""
        small = num_params(self.config) <= GRAPH_PARAMS and self.accumulation_steps == 1
        mode = "reduce-overhead" if small and self.device.type == "cuda" else None
        compiled: Callable[[Tensor, Tensor, dict[str, float]], Tensor] = torch.compile(
            self._loss, dynamic=False, mode=mode
        )
        return compiled

    def evaluate(self) -> Evaluation:
        """Evaluate the model on the validation set and start a new interval.

        Raises:
            DivergedError: the cross-entropy is not finite.
        """
        started, counters = time.perf_counter(), self.counters
        config, weight = self.config, self.model.lm_head.weight
        part = self.validation.part(distributed.rank(), distributed.world_size())
        hidden = hidden_states(self.model, part, self.batch_size, self.autocast())
        options = config.loss_options_at(counters.step)
        scores = score(hidden, weight, part, config.loss, options)
        self.scores = Scores.joined(distributed.gathered(scores)[: len(self.validation.idx)])
        measured = metrics(self.scores, self.validation.text_bytes)
        if not math.isfinite(measured.cross_entropy):
            raise DivergedError(
                counters.step,
                f"validation cross-entropy {measured.cross_entropy:g} at step {counters.step}",
            )
        if counters.best_cross_entropy is None or (
            measured.cross_entropy < counters.best_cross_entropy
        ):
            counters.best_step, counters.best_cross_entropy = counters.step, measured.cross_entropy
        tempered = self._temperature_perplexity(hidden) if self.done else None
        counters.seconds += time.perf_counter() - started
        tokens_per_step = self.config.tokens_per_step
        interval = counters.steps_since_evaluation
        result = Evaluation(
            step=counters.step,
            tokens=counters.step * tokens_per_step,
            train_loss=counters.loss_sum / interval,
            **asdict(measured),
            temperature_perplexity=tempered,
            learning_rate=counters.learning_rate,
            grad_norm=counters.grad_norm,
            tokens_per_second=interval * tokens_per_step / counters.seconds_since_evaluation,
            elapsed_seconds=counters.seconds,
            peak_memory_bytes=_peak_memory(self.device),
        )
        counters.loss_sum = counters.seconds_since_evaluation = 0.0
        counters.steps_since_evaluation = 0
        return result

    def _temperature_perplexity(self, hidden: Tensor) -> float:
        data = self.validation
        if distributed.world_size() > 1:  # one temperature is fitted to all stories
            hidden = hidden_states(self.model, data, self.batch_size, self.autocast())
        weight = self.model.lm_head.weight
        if self.device.type == "mps":  # which has no float64
            hidden, weight = hidden.cpu(), weight.cpu()
        return temperature_perplexity(hidden, weight, data)

    @property
    def done(self) -> bool:
        """True once the last step has been made, or patience is at its end."""
        last = self.counters.step >= self.config.max_steps
        return last or self.counters.out_of_patience(self.config)

    @property
    def at_sample(self) -> bool:
        """True at an evaluation that is due a story."""
        config, step = self.config, self.counters.step
        if config.sample_interval is None:
            return False
        return self.done or step % config.sample_interval < config.eval_interval

    @property
    def at_evaluation(self) -> bool:
        """True at every eval_interval steps and at the last step."""
        return self.counters.step % self.config.eval_interval == 0 or self.done

    def save(self, run_dir: Path) -> None:
        """Write a checkpoint; only the weights if the run is done.

        Raises:
            DivergedError: see `settle`.
        """
        self.settle()
        weights = {k: v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        state = {"counters": asdict(self.counters), "batches": self.batches.state_dict()}
        state["config"] = _what_trains(self.config)
        optimizer = None
        if not self.done:
            optimizer, state["optimizers"] = optimizer_state(
                self.optimizers, self.model.named_parameters()
            )
            optimizer |= self._random_state()
            state["scaler"] = self.scaler.state_dict()  # empty unless in float16
        branch = branch_step(self.config)
        kept = {self.counters.best_step} | ({branch} if branch is not None else set())
        checkpoint.save(run_dir, self.counters.step, weights, optimizer, state, kept)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Load a checkpoint, to continue exactly where `save` was called.

        Raises:
            DataError: it was made with another configuration.
        """
        _check_same_run(self.config, saved)
        load_weights(self.model, saved.model)
        self.counters = Counters(**saved.state["counters"])
        self.batches.load_state_dict(saved.state["batches"])
        if saved.optimizer is not None:
            numbers = saved.state.get("optimizers", {})  # not in checkpoints of earlier versions
            parameters = self.model.named_parameters()
            load_optimizer_state(self.optimizers, parameters, saved.optimizer, numbers)
            self._set_random_state(saved.optimizer)
            if self.scaler.is_enabled() and saved.state.get("scaler"):
                self.scaler.load_state_dict(saved.state["scaler"])

    def _random_state(self) -> dict[str, Tensor]:
        state = {"rng.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        if self.device.type == "mps":
            state["rng.mps"] = torch.mps.get_rng_state()
        return state

    def _set_random_state(self, tensors: dict[str, Tensor]) -> None:
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        if "rng.mps" in tensors and self.device.type == "mps":
            torch.mps.set_rng_state(tensors["rng.mps"])


def make_optimizers(model: GPT, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Make the optimisers of a run.

    Raises:
        InputError: one needs a package that is not installed.
    """
    check_installed(config.optimizer)
    setup = Setup.of(
        model.named_parameters(),
        config.learning_rate,
        (config.beta1, config.beta2),
        config.weight_decay,
        config.scaling,
    )
    return OPTIMIZERS[config.optimizer](setup, **config.optimizer_options)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    """Set the learning rate of every group, times its "lr_scale" where it has one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of an optimiser step, counted from 0, below max_steps."""
    return SCHEDULES[config.schedule](
        step,
        peak=config.learning_rate,
        warmup_steps=config.warmup_steps,
        max_steps=config.max_steps,
        min_lr_ratio=config.min_lr_ratio,
        **config.schedule_options,
    )


def branch_step(config: TrainConfig) -> int | None:
    """Return the last evaluation up to which a longer run makes the same steps; None: none.

    Up to there the learning rate is at its peak and the loss's weight does not depend on the end.
    """
    if config.loss_schedule != "constant":
        return None
    last = (config.max_steps - 1) // config.eval_interval * config.eval_interval
    for step in range(last, config.warmup_steps, -config.eval_interval):
        if math.isclose(learning_rate_at(step - 1, config), config.learning_rate):
            return step
    return None


def _what_trains(config: TrainConfig) -> dict[str, Any]:
    """Return what of a configuration makes its steps what they are, as JSON can hold it."""
    values = config.model_dump(mode="json", exclude=MAY_CHANGE)
    return values | {"tokens_per_step": config.tokens_per_step}


def _check_same_run(config: TrainConfig, saved: checkpoint.Checkpoint) -> None:
    made_with = saved.state.get("config", {})  # not in checkpoints of earlier versions
    for name, value in _what_trains(config).items():
        if made_with.get(name, value) != value:
            raise DataError(
                f"{name} must be {made_with[name]!r}, with which the checkpoint of step "
                f"{saved.step} was made, but config.json has {value!r}; change it back, or train "
                f"in another directory."
            )


def _peak_memory(device: torch.device) -> int:
    """Peak memory so far in bytes: the allocator's on a GPU, the process's on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":  # where the allocator keeps what it has had
        return torch.mps.driver_allocated_memory()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024
