"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest
import test_head
import test_losses
import torch
from torch import Tensor

from gpt.losses import functional as losses
from gpt.losses.logit_stats import LogitStats

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_loss_that_is_added_trains_and_passes_the_tests_of_losses(
    monkeypatch: pytest.MonkeyPatch,
):
    (example,) = re.findall(r"```python\n(def .*?)```", README, flags=re.DOTALL)
    monkeypatch.setitem(losses.LOSSES, "exponential", None)  # taken out again at the end
    exec(example, vars(losses) | {"LogitStats": LogitStats, "Tensor": Tensor, "torch": torch})
    loss = losses.LOSSES["exponential"]
    logits = torch.tensor([[1.0, 2.0, -1.0]])
    by_hand = torch.logsumexp(logits, 1) - 2 + 0.5 * (logits[0, 0].exp() + logits[0, 2].exp()) / 2
    torch.testing.assert_close(
        loss(logits, torch.tensor([1]), residual_weight=0.5), by_hand.squeeze()
    )
    test_losses.test_gradient_is_the_derivative("exponential")
    test_losses.test_ignored_targets_have_no_gradient("exponential")
    test_head.test_a_tied_embedding_gets_the_gradients_of_both_its_uses("exponential")
    test_head.test_two_micro_batches_add_up_to_the_whole_one("exponential")
