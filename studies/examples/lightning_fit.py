"""A classifier with Lightning, whose configuration is the YAML file that is given.

python lightning_fit.py out/lightning_fit.yaml
"""

import sys
from pathlib import Path

import lightning as L
import torch
import yaml
from torch.utils.data import DataLoader, TensorDataset

settings = yaml.safe_load(Path(sys.argv[1]).read_text())


class Classifier(L.LightningModule):
    """Two layers that find out whether a point lies in the unit circle."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, settings["width"]),
            torch.nn.ReLU(),
            torch.nn.Linear(settings["width"], 2),
        )

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch."""
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """Log the share of points that are classified right."""
        self.log("val_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def on_validation_epoch_end(self) -> None:
        """Print the line that the study file's pattern matches."""
        accuracy = self.trainer.callback_metrics["val_acc"]
        print(f"epoch {self.current_epoch}: val_acc {accuracy:.4f}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer that the study compares."""
        made = getattr(torch.optim, settings["optimizer"])
        return made(self.parameters(), lr=settings["learning_rate"])


def points(count: int, seed: int) -> DataLoader:
    """Draw points of the plane, with 1 for those within the unit circle."""
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, (x.norm(dim=1) < 1).long()), batch_size=64)


L.seed_everything(settings["seed"])
L.Trainer(
    max_epochs=5,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    num_sanity_val_steps=0,
).fit(Classifier(), points(512, 1), points(512, 2))
