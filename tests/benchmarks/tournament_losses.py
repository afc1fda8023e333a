"""Label smoothing as a loss of its own, so that cross-entropy has none in tournament.toml."""

from gpt.losses import LOSSES, Loss
from gpt.losses.functional import cross_entropy
from gpt.losses.link_functions import cross_entropy as link
from gpt.losses.loss import Option

LOSSES["smoothed"] = Loss(
    cross_entropy, {"label_smoothing": Option(0.1, low=0.01, high=0.2, below=1.0)}, link
)
