"""CompleteP: multipliers by which settings that were tuned at one width and depth serve another.

With m_N = n_embd / base_n_embd, m_L = n_layer / base_n_layer and m_D the same ratio of head sizes,
each of these is that of the standard parametrization times

    first weights of the blocks' matrices, standard deviation   m_N ** -0.5
    output of each attention and MLP, added to the residual     1 / m_L
    scores of attention, q k^T / sqrt(D)                        m_D ** -0.5: they go by 1 / D
    logits                                                      1 / m_N
    learning rate of the blocks' matrices: AdamW                1 / m_N
                                           Muon                 m_N ** -0.5
    weight decay of the blocks' matrices                        1 / that of the learning rate
    AdamW's eps: of the blocks                                  1 / (m_N * m_L)
                 of embeddings and of the last gains            1 / m_N

Embeddings, gains and biases keep their first values and learning rates. At the base shape every
multiplier is 1: CompleteP is the standard parametrization there, bit for bit. The blocks' c_proj
start at init_std / sqrt(2 * base_n_layer), which the depth leaves as it is.

Muon's update of an n x n matrix, scaled to AdamW's size, has the spectral norm 0.2 sqrt(n) for any
gradient, where AdamW's has one in proportion to n; the spectral norm of an update must stay the
same at every width, so its learning rate falls with sqrt(m_N), not with m_N.

Source:
    Dey et al. (2025), "Don't be lazy: CompleteP enables compute-efficient deep transformers",
    arXiv:2505.01618, table 1 with alpha = 1 and equation 40; the width: Yang et al. (2022), "Tensor
    programs V", arXiv:2203.03466; Muon: Yang, Simon, Bernstein (2023), "A spectral condition for
    feature learning", arXiv:2310.17813.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scaling:
    """Ratios of a model's shape to the base shape; 1 is the standard parametrization.

    Attributes:
        width: m_N.
        depth: m_L.
        head_size: m_D.
    """

    width: float = 1.0
    depth: float = 1.0
    head_size: float = 1.0

    @property
    def matrix_std(self) -> float:
        """Multiplier of the first weights of the blocks' matrices."""
        return float(self.width**-0.5)

    @property
    def residual(self) -> float:
        """Multiplier of what a block adds to the residual stream."""
        return 1.0 / self.depth

    @property
    def attention(self) -> float:
        """Multiplier of 1 / sqrt(D), which multiplies the scores of attention."""
        return float(self.head_size**-0.5)

    @property
    def output(self) -> float:
        """Multiplier of the logits."""
        return 1.0 / self.width

    @property
    def adamw_matrices(self) -> float:
        """Multiplier of AdamW's learning rate of the blocks' matrices."""
        return 1.0 / self.width

    @property
    def muon_matrices(self) -> float:
        """Multiplier of Muon's learning rate of the blocks' matrices."""
        return float(self.width**-0.5)

    @property
    def eps(self) -> float:
        """Multiplier of AdamW's eps outside of the blocks."""
        return 1.0 / self.width

    @property
    def eps_of_blocks(self) -> float:
        """Multiplier of AdamW's eps of the blocks."""
        return 1.0 / (self.width * self.depth)


STANDARD = Scaling()
COMPLETEP_OPTIMIZERS = ("adamw", "muon")  # of which the scaling is known
