"""Losses, their link functions, and the linear head that is fused with them.

loss = LOSSES["squentropy"](logits, targets, square_weight=1.0)

gpt.losses.fused_linear takes the loss without the logits. It is not imported here: it imports
torch's compiler, for a second, which no reader of a configuration needs.
"""

from gpt.losses.functional import LOSSES
from gpt.losses.logit_stats import LogitStats
from gpt.losses.loss import IGNORE_INDEX, Loss
from gpt.losses.options import Option

__all__ = ["IGNORE_INDEX", "LOSSES", "LogitStats", "Loss", "Option"]
