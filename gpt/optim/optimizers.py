"""Optimisers. Add one by adding one function of Setup and one OPTIMIZERS entry.

Each is torch's own, or a package's; none is written here. A function returns the torch optimisers
that together update every parameter once. Their groups' "lr" is set before each step: the
schedule's value times the group's "lr_scale", 1 where it has none.

`learning_rate` has AdamW's meaning for all that can have it: Muon's updates are scaled to AdamW's
size, so one range suits both. SGD, Lion and Adafactor have scales of their own; see each.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import Parameter

from gpt.errors import InputError
from gpt.losses.options import Option, checked_options
from gpt.optim.parametrization import STANDARD, Scaling

EPS = 1e-8  # of AdamW; torch's default


@dataclass(frozen=True)
class Setup:
    """A model's parameters by kind, and the numbers of a run that optimisers share.

    Attributes:
        matrices: 2-D weights of the blocks.
        embeddings: Of tokens, which are the output head too, and of positions.
        vectors: Gains and biases; they never decay.
        learning_rate: The schedule's peak.
        betas: beta1 and beta2 of the run.
        weight_decay: Of matrices and embeddings.
        last_vectors: Those of `vectors` that stand after the blocks.
        scaling: Of the run's parametrization.
    """

    matrices: list[Parameter]
    embeddings: list[Parameter]
    vectors: list[Parameter]
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    last_vectors: list[Parameter] = field(default_factory=list)
    scaling: Scaling = STANDARD

    @classmethod
    def of(
        cls,
        named_parameters: Iterable[tuple[str, Parameter]],
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        scaling: Scaling = STANDARD,
    ) -> "Setup":
        """Sort the parameters of a GPT by kind; those of blocks have ".h." in their names."""
        matrices: list[Parameter] = []
        embeddings: list[Parameter] = []
        vectors: list[Parameter] = []
        last: list[Parameter] = []
        for name, parameter in named_parameters:
            if parameter.dim() < 2:
                vectors.append(parameter)
                last += [] if ".h." in name else [parameter]
            else:
                (matrices if ".h." in name else embeddings).append(parameter)
        return cls(matrices, embeddings, vectors, learning_rate, betas, weight_decay, last, scaling)

    def groups(self, *, matrices: bool = True) -> list[dict[str, Any]]:
        """Return nanoGPT's two groups: what decays, with or without the matrices, and the rest.

        Of another scaling than the standard one, AdamW's groups by learning rate, weight decay and
        eps.
        """
        if self.scaling != STANDARD:
            return self._scaled_groups(matrices=matrices)
        decayed = [*self.embeddings, *(self.matrices if matrices else [])]
        return [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": self.vectors, "weight_decay": 0.0},
        ]

    def _scaled_groups(self, *, matrices: bool) -> list[dict[str, Any]]:
        scaling, last = self.scaling, set(self.last_vectors)
        inner = [vector for vector in self.vectors if vector not in last]
        of_blocks, outside = EPS * scaling.eps_of_blocks, EPS * scaling.eps
        ratio = scaling.adamw_matrices
        groups: list[dict[str, Any]] = [
            {"params": self.embeddings, "weight_decay": self.weight_decay, "eps": outside},
            {"params": inner, "weight_decay": 0.0, "eps": of_blocks},
            {"params": self.last_vectors, "weight_decay": 0.0, "eps": outside},
        ]
        if matrices:
            decay = {"weight_decay": self.weight_decay / ratio, "lr_scale": ratio}
            groups.append({"params": self.matrices, "eps": of_blocks} | decay)
        return groups


def adamw(s: Setup) -> list[torch.optim.Optimizer]:
    """AdamW as nanoGPT sets it up, with beta1 and beta2 of the run.

    Source:
        Loshchilov and Hutter (2019), arXiv:1711.05101.
    """
    return [torch.optim.AdamW(s.groups(), lr=s.learning_rate, betas=s.betas, fused=True)]


def muon(s: Setup, momentum: float, matrix_lr_ratio: float) -> list[torch.optim.Optimizer]:
    """Muon on the blocks' matrices, AdamW on embeddings, gains and biases.

    Muon orthogonalises the momentum of each matrix (c_attn as the one matrix that it is) and
    scales it by 0.2 sqrt(max(rows, columns)), so that its elements are as large as AdamW's: both
    halves share learning_rate and weight_decay.

    Args:
        momentum: In [0, 1), Nesterov's.
        matrix_lr_ratio: Learning rate of the matrices over that of the rest, above 0.

    Source:
        Jordan et al. (2024), "Muon", kellerjordan.github.io/posts/muon; the scale is that of Liu et
        al. (2025), "Muon is scalable for LLM training", arXiv:2502.16982, section 2.2.
    """
    matrices = torch.optim.Muon(
        [{"params": s.matrices, "lr_scale": matrix_lr_ratio * s.scaling.muon_matrices}],
        lr=s.learning_rate,
        weight_decay=s.weight_decay / s.scaling.muon_matrices,
        momentum=momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = torch.optim.AdamW(
        s.groups(matrices=False), lr=s.learning_rate, betas=s.betas, fused=True
    )
    return [matrices, rest]


def sgd(s: Setup, momentum: float) -> list[torch.optim.Optimizer]:
    """Stochastic gradient descent with momentum; its rates are far above AdamW's.

    Its weight decay is added to the gradient, so that momentum and learning rate scale it.

    Args:
        momentum: In [0, 1); 0 is plain SGD.
    """
    return [torch.optim.SGD(s.groups(), lr=s.learning_rate, momentum=momentum, fused=True)]


def lion(s: Setup) -> list[torch.optim.Optimizer]:
    """Lion, whose every step has the size of the learning rate: 3 to 10 times below AdamW's.

    Its beta1 and beta2 are those of the run; its paper has 0.95 and 0.98 for language models, and
    3 to 10 times AdamW's weight decay.

    Source:
        Chen et al. (2023), arXiv:2302.06675, in the package pytorch-optimizer.
    """
    from pytorch_optimizer import Lion

    return [Lion(s.groups(), lr=s.learning_rate, betas=s.betas)]


def adafactor(s: Setup, beta2_decay: float) -> list[torch.optim.Optimizer]:
    """Adafactor, with second moments by row and column.

    A step is min(learning rate, 1 / sqrt(t)) times the root mean square of the tensor's weights, at
    least 1e-3: rates are about AdamW's over that root mean square.

    Args:
        beta2_decay: In [-1, 0): the second moment of step t averages with 1 - t ** beta2_decay.

    Source:
        Shazeer and Stern (2018), arXiv:1804.04235.
    """
    return [torch.optim.Adafactor(s.groups(), lr=s.learning_rate, beta2_decay=beta2_decay)]


@dataclass(frozen=True)
class Optimizer:
    """An optimiser that a run can name; calling it makes torch's for a model.

    Attributes:
        make: Setup and options -> torch optimisers that update every parameter once.
        options: The options it takes, by name.
        package: To import; None where torch is enough. The extra of squen-sweep has the name of
            the optimiser.
    """

    make: Callable[..., list[torch.optim.Optimizer]]
    options: Mapping[str, Option] = field(default_factory=dict)
    package: str | None = None

    def __call__(self, setup: Setup, **options: float) -> list[torch.optim.Optimizer]:
        """Make the torch optimisers of a run.

        Raises:
            ValueError: an option that it does not take, or a value that one may not have.
        """
        return self.make(setup, **self.checked(options))

    def checked(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return these options with the defaults of all others; see checked_options."""
        return checked_options(self.make.__name__, self.options, options)


MOMENTUM = Option(0.95, low=0.8, high=0.99, below=1.0)

OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer(adamw),
    "muon": Optimizer(
        muon,
        {
            "momentum": MOMENTUM,
            "matrix_lr_ratio": Option(1.0, low=0.25, high=4.0, log=True, at_least=1e-6),
        },
    ),
    "sgd": Optimizer(sgd, {"momentum": replace(MOMENTUM, default=0.9)}),
    "lion": Optimizer(lion, package="pytorch_optimizer"),
    "adafactor": Optimizer(
        adafactor, {"beta2_decay": Option(-0.8, low=-0.95, high=-0.5, at_least=-1.0, below=0.0)}
    ),
}


def check_installed(name: str) -> None:
    """Raise InputError if an optimiser needs a package that is not there."""
    package = OPTIMIZERS[name].package
    if package is not None and find_spec(package) is None:
        raise InputError(
            f"optimizer {name} needs {package}, but it is not installed; "
            f"pip install 'squen-sweep[{name}]'"
        )
