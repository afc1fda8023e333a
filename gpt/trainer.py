"""The trainer: model, optimiser, data and counters, and one training step.

The loop over steps, with its log and checkpoints, is in gpt.train.
"""

import math
import resource
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt import checkpoint
from gpt.config import TrainConfig
from gpt.data.dataset import Batches, TokenData
from gpt.errors import DivergedError
from gpt.evaluate import Scores, hidden_states, metrics, score, temperature_perplexity
from gpt.events import Evaluation
from gpt.losses.fused_linear import linear_loss
from gpt.model import GPT
from gpt.optim import learning_rate_at, make_optimizer
from gpt.system.malloc import keep_freed_memory


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
        self.device = torch.device(config.device)
        self.model = GPT(config).to(self.device)
        self.optimizer = make_optimizer(self.model, config)
        self.batches = Batches(data.train, config.block_size, config.batch_size, config.seed)
        self.validation = data.validation(
            config.block_size, config.eval_tokens, config.eval_skip_tokens
        )
        self.counters = Counters()
        self.scores: Scores | None = None  # of the last evaluation
        self.hidden = torch.compile(self.model) if config.compile else self.model

    def autocast(self) -> AbstractContextManager[object]:
        """Context for matrix products in config.dtype; weights, sums and optimiser stay float32."""
        if self.config.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def step(self) -> None:
        """Make one optimiser step.

        Raises:
            DivergedError: the loss or the gradient is not finite; weights are as before.
        """
        started, config, counters = time.perf_counter(), self.config, self.counters
        counters.learning_rate = learning_rate_at(counters.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = counters.learning_rate
        loss = self._backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), config.grad_clip or math.inf
        ).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                counters.step,
                f"training loss {loss:g}, gradient norm {norm:g} after step {counters.step} "
                f"at learning rate {counters.learning_rate:.3g}",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        counters.step += 1
        counters.loss_sum += loss
        counters.steps_since_evaluation += 1
        counters.grad_norm = norm
        seconds = time.perf_counter() - started
        counters.seconds += seconds
        counters.seconds_since_evaluation += seconds

    def _backward(self) -> float:
        """Accumulate gradients over one step's micro-batches; return the mean loss."""
        total = 0.0
        for _ in range(self.config.gradient_accumulation_steps):
            idx, targets = (x.to(self.device, non_blocking=True) for x in next(self.batches))
            with self.autocast():
                loss = linear_loss(
                    self.hidden(idx).flatten(0, 1),
                    self.model.lm_head.weight,
                    targets.flatten(),
                    self.config.loss,
                    **self.config.loss_options,
                )
            loss = loss / self.config.gradient_accumulation_steps
            loss.backward()
            total += loss.item()
        return total

    def evaluate(self) -> Evaluation:
        """Evaluate the model on the validation set and start a new interval.

        Raises:
            DivergedError: the cross-entropy is not finite.
        """
        started, counters = time.perf_counter(), self.counters
        config, data, weight = self.config, self.validation, self.model.lm_head.weight
        hidden = hidden_states(self.model, data, config.batch_size, self.autocast())
        self.scores = score(hidden, weight, data, config.loss, config.loss_options)
        measured = metrics(self.scores, data.text_bytes)
        if not math.isfinite(measured.cross_entropy):
            raise DivergedError(
                counters.step,
                f"validation cross-entropy {measured.cross_entropy:g} at step {counters.step}",
            )
        tempered = temperature_perplexity(hidden, weight, data) if self.done else None
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

    @property
    def done(self) -> bool:
        """True once the last step has been made."""
        return self.counters.step >= self.config.max_steps

    @property
    def at_evaluation(self) -> bool:
        """True at every eval_interval steps and at the last step."""
        return self.counters.step % self.config.eval_interval == 0 or self.done

    def save(self, run_dir: Path) -> None:
        """Write a checkpoint; only the weights if the run is done."""
        weights = {k: v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        state = {"counters": asdict(self.counters), "batches": self.batches.state_dict()}
        optimizer = None if self.done else self._optimizer_tensors()
        checkpoint.save(run_dir, self.counters.step, weights, optimizer, state)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Load a checkpoint, to continue exactly where `save` was called."""
        self.model.load_state_dict(saved.model, strict=False)  # lm_head.weight is wte.weight
        self.counters = Counters(**saved.state["counters"])
        self.batches.load_state_dict(saved.state["batches"])
        if saved.optimizer is not None:
            self._load_optimizer_tensors(saved.optimizer)

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """Return AdamW's state by parameter name, and the states of the random generators."""
        tensors = {
            f"{key}.{name}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def _load_optimizer_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)


def _peak_memory(device: torch.device) -> int:
    """Peak memory so far in bytes: the allocator's on CUDA, the process's on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024
