"""What the documents show works as it stands there."""

import re
import shlex
from pathlib import Path

import pytest
import test_head
import test_losses
import torch
from commands import Commands
from invariants import ROOT
from torch import Tensor

from gpt.losses import functional as losses
from gpt.losses.logit_stats import LogitStats

LOSSES = (ROOT / "gpt" / "losses" / "README.md").read_text()
README = (ROOT / "README.md").read_text()

# A program like nanoGPT's, which prints its lines.
TRAIN = """
import argparse, math, random
parser = argparse.ArgumentParser()
for name in ("--out_dir", "--optimizer"): parser.add_argument(name)
parser.add_argument("--lr", type=float)
parser.add_argument("--seed", type=int)
given = parser.parse_args()
random.seed(given.seed)
slope = given.lr * (300 if given.optimizer == "muon" else 200)
for step in range(0, 101, 20):
    loss = 2 + 2 * math.exp(-slope * step / 100) + random.gauss(0, 0.01)
    print(f"step {step}: train loss {loss - 0.1:.4f}, val loss {loss:.4f}")
"""


def test_the_loss_that_is_added_trains_and_passes_the_tests_of_losses(
    monkeypatch: pytest.MonkeyPatch,
):
    (example,) = re.findall(r"```python\n(def .*?)```", LOSSES, flags=re.DOTALL)
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


@pytest.mark.slow
def test_the_program_of_ones_own_is_swept_and_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (section,) = re.findall(r"## Your own program\n(.*?)\n## ", README, flags=re.DOTALL)
    assert len(section.splitlines()) <= 25
    (study,) = re.findall(r"```toml\n(.*?)```", section, flags=re.DOTALL)
    (shell,) = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    (tmp_path / "own.toml").write_text(study)
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    commands = Commands(monkeypatch, capsys, tmp_path)
    for line in shell.strip().split(" && "):
        program, *words = shlex.split(line)
        done = commands(*words)
        assert (program, done.code) == ("squen-sweep", 0), done.err
    assert "muon is better than adamw" in done.out
