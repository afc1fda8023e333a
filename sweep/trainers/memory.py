"""Memory and arithmetic of a run of the built-in GPT, by formula, before it starts.

Counted are the tensors that gpt.trainer holds at the moments when it may hold most. Shapes: N
tokens in a micro-batch, C = n_embd, H = n_head, T = block_size, V = vocab_size, P weights; a number
of the matrix products' dtype has b bytes, all others 4.

tests/benchmarks/memory.py compares the formula with measured peaks. Where a run is compiled it is
an upper bound, since the compiler keeps fewer activations.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpt.config import TrainConfig
from gpt.evaluate import EVAL_BATCH_FACTOR
from gpt.losses.fused_linear import BLOCK_BYTES, CHUNK_BYTES, CHUNK_ROWS
from gpt.model import MAX_PLAIN_TOKENS, num_params

FLOAT = 4  # bytes of a float32
# Of an optimiser's state for each weight: of the blocks' matrices, and of all others.
STATE_BYTES: Mapping[str, tuple[int, int]] = {
    "adamw": (8, 8),
    "muon": (4, 8),
    "sgd": (4, 4),
    "lion": (4, 4),
    "adafactor": (0, 0),  # by row and column
}
PLAIN_LOSSES = ("cross_entropy", "squentropy")
OTHER_LOSSES_BLOCKS = 3  # of logits, besides what those take: functions of them, and derivatives
# Memory outside torch's allocator: a process that has imported a trainer and run it; on a
# GPU its context and libraries, which are estimates: no GPU has confirmed them.
PROCESS_BYTES = {"cpu": 360_000_000, "cuda": 700_000_000, "mps": 700_000_000}
# An allocator's memory over its tensors': measured for malloc in float32 and in half precision,
# where it varies from 1.1 to 1.9; the others are estimates.
HEAP = {"cpu": (1.3, 1.48), "cuda": (1.1, 1.1), "mps": (1.1, 1.1)}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a run takes on its device."""

    weights: int
    optimizer: int  # its state
    activations: int  # kept by the forward pass of one micro-batch for backward
    training: int  # the most beside weights and optimiser, in a step: activations and the rest
    evaluation: int  # the same in an evaluation
    heap: float  # what an allocator takes over what its tensors take
    process: int  # outside torch's allocator

    @property
    def tensors(self) -> int:
        """Peak of all tensors; on CUDA, what torch.cuda.max_memory_allocated reports."""
        return self.weights + self.optimizer + max(self.training, self.evaluation)

    @property
    def peak(self) -> int:
        """Peak of the process."""
        return round(self.heap * self.tensors) + self.process


def estimate_memory(config: TrainConfig) -> MemoryEstimate:
    """Estimate the memory of a run by formula, in microseconds."""
    C = config.n_embd
    weights = num_params(config) + config.block_size * C
    matrices = config.n_layer * 12 * C * C
    of_matrix, of_other = STATE_BYTES.get(config.optimizer, (8, 8))
    kind = config.device.partition(":")[0]
    return MemoryEstimate(
        weights=FLOAT * weights,
        optimizer=of_matrix * matrices + of_other * (weights - matrices),
        activations=_activations(config),
        training=_training(config, FLOAT * weights),
        evaluation=_evaluation(config),
        heap=HEAP[kind][config.dtype != "float32"],
        process=PROCESS_BYTES[kind],
    )


def training_flops(config: TrainConfig) -> float:
    """Floating-point operations of a complete run's training: 6 N + 12 L C T a token.

    Divided by the rate that a device reaches, they are its seconds.

    Source:
        Chowdhery et al. (2022), "PaLM", arXiv:2204.02311, appendix B; nanoGPT's estimate_mfu.
    """
    of_token = 6 * num_params(config) + 12 * config.n_layer * config.n_embd * config.block_size
    return float(of_token) * config.tokens_per_step * config.max_steps


def _width(config: TrainConfig) -> int:
    """Bytes b of a number in matrix products."""
    return FLOAT if config.dtype == "float32" else 2


def _tokens(config: TrainConfig) -> int:
    return config.batch_size * config.block_size


def _activations(config: TrainConfig) -> int:
    """Activations that a forward pass keeps."""
    C, b = config.n_embd, _width(config)
    N, L, drops = _tokens(config), config.n_layer, config.dropout > 0
    mask = b if config.device == "cpu" else 1
    residual = 2 * FLOAT * C  # inputs of both norms
    inputs = 2 * b * C  # of c_attn and c_fc
    mlp = 8 * b * C  # before and after the activation
    masks = 2 * mask * C if drops else 0
    layer = residual + inputs + mlp + masks + _attention(config)
    # A matrix in another dtype is a copy, kept for backward.
    copies = 0 if b == FLOAT else 12 * C * C * b * L
    embedding = (FLOAT if config.device == "cpu" else 1) * C if drops else 0
    return N * (L * layer + FLOAT * C + embedding + 16) + copies


def _attention(config: TrainConfig) -> int:
    """Bytes that attention keeps for a token: queries, keys, values, output and weights."""
    C, H, T, b = config.n_embd, config.n_head, config.block_size, _width(config)
    kept = 4 * b * C
    if config.qk_norm:
        kept += 3 * b * C + (2 * C if b < FLOAT else 0)
    if (wide := _weights_width(config)) == 0:
        return kept + FLOAT * H  # logarithms of the softmax's sums
    kinds = 3 if config.dropout > 0 else 1  # weights; the mask, and their product
    return kept + kinds * wide * H * T


def _weights_width(config: TrainConfig) -> int:
    """Bytes of an attention weight that is kept for backward; 0 where none is."""
    if config.device != "cpu":
        return 0
    b = _width(config)
    if config.block_size <= MAX_PLAIN_TOKENS:
        return b if config.dropout > 0 or b < FLOAT else 0
    return FLOAT if config.dropout > 0 else 0


def _logit_buffers(config: TrainConfig, tokens: int) -> int:
    """Logits of a chunk of rows, and the blocks that a loss works on."""
    V, b, kind = config.vocab_size, _width(config), config.device.partition(":")[0]
    rows = min(tokens, max(CHUNK_ROWS[kind], CHUNK_BYTES[kind] // (V * b)))
    of_block = min(rows, max(1, BLOCK_BYTES[kind] // (V * FLOAT)))
    blocks = 1 + (b < FLOAT)
    if config.loss not in PLAIN_LOSSES:
        blocks += OTHER_LOSSES_BLOCKS
    return rows * V * b + blocks * of_block * V * FLOAT


def _training(config: TrainConfig, gradients: int) -> int:
    """The most that a step holds beside weights and optimiser.

    It is reached where the last chunk of logits adds its part to the head's gradient, where
    backward scales that gradient, in the last block's backward, or where all gradients are there
    and that of the embedding is made twice: as the head's, and as the embedding's.
    """
    C, V, b, N = config.n_embd, config.vocab_size, _width(config), _tokens(config)
    kept, of_head = _activations(config), FLOAT * V * C
    before = gradients if config.gradient_accumulation_steps > 1 else 0
    forward = FLOAT * N * C + b * N * C + of_head + _logit_buffers(config, N)
    if b < FLOAT:  # copies of hidden states and weight; a chunk's product, on a CPU widened
        forward += b * N * C + 2 * b * V * C + (of_head if config.device == "cpu" else 0)
    scaled = 2 * of_head + (2 * b + FLOAT) * N * C
    weights = N * config.n_head * config.block_size * _weights_width(config)
    mlp = (8 if config.activation == "relu2" else 4) * b * N * C
    block = of_head + FLOAT * N * C + max(mlp, weights - 6 * b * N * C)
    end = gradients + of_head + FLOAT * N * C - before
    return before + max(kept + max(forward, scaled, block), end)


def _evaluation(config: TrainConfig) -> int:
    """The most that an evaluation holds beside weights and optimiser.

    It is reached in a block's MLP, in its attention, or where all hidden states are put together.
    """
    C, V, b, T = config.n_embd, config.vocab_size, _width(config), config.block_size
    targets = max(config.eval_tokens, T)
    N = min(EVAL_BATCH_FACTOR * _tokens(config), -(-targets // T) * T)
    mlp = 3 * FLOAT * C + (12 if config.activation == "relu2" else 8) * b * C
    plain = config.device == "cpu" and b < FLOAT and T <= MAX_PLAIN_TOKENS
    attention = 2 * FLOAT * C + 7 * b * C + (2 * b * config.n_head * T if plain else 0)
    copies = 0 if b == FLOAT else 12 * C * C * b * config.n_layer
    hidden = FLOAT * C * targets
    model = N * max(mlp, attention) + copies + (hidden if targets > N else 0)
    kind = config.device.partition(":")[0]
    rows = min(targets, max(CHUNK_ROWS[kind], CHUNK_BYTES[kind] // (V * FLOAT)))
    head = 2 * hidden + rows * V * FLOAT + 16 * FLOAT * targets
    return max(model, head)
