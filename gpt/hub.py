"""Stories of a data set on the Hugging Face hub, or of the copy that `datasets` keeps of it.

Streams, so that a limit of stories is a limit of download. Decides within seconds whether the hub
answers: `datasets` alone would retry for 24 s without a network, and for minutes with a host that
accepts and never answers.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt.errors import InputError
from gpt.network import unanswered

_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its variables


def quiet_datasets(offline: bool) -> Any:
    """The module datasets, offline or not, that raises its errors and prints nothing."""
    import datasets
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = offline
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


class HubUnreachableError(InputError):
    """The hub does not answer and nothing of it is kept here; `reason` says it without advice."""

    def __init__(self, name: str, reason: str) -> None:
        self.reason = f"the hub's data set {name} cannot be had: {reason}"
        super().__init__(
            f"{self.reason}; give --data PATH (.txt, .jsonl or .parquet stories) or --data "
            f"built-in, or mend the connection (HF_ENDPOINT, HTTPS_PROXY, HF_HUB_OFFLINE)."
        )


class HubDataset:
    """A data set of the hub with a column text, or the local copy where the hub does not answer.

    Raises:
        HubUnreachableError: neither has it.
        InputError: from stories(), there is no such data set, split or column.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reason = _offline_reason(name)  # why the local copy is read; None: the hub answers
        if self.reason and not _kept(name):
            raise HubUnreachableError(name, self.reason)

    def stories(self, split: str) -> Iterator[str]:
        """The column text of one split, row by row, as it arrives."""
        datasets = quiet_datasets(offline=self.reason is not None)
        try:
            rows = datasets.load_dataset(self.name, split=split, streaming=True)
            for row in rows:
                if "text" not in row:
                    raise InputError(
                        f"{self.name} must have a column text, but has {', '.join(row)}."
                    )
                if row["text"]:
                    yield row["text"]
        except (InputError, GeneratorExit):
            raise
        except Exception as error:  # requests', httpx', aiohttp's, fsspec's, datasets' own
            raise self._explained(error, split, datasets) from None

    def _explained(self, error: Exception, split: str, datasets: Any) -> InputError:
        if self.reason:
            return HubUnreachableError(self.name, self.reason)
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, datasets.exceptions.DatasetNotFoundError):
            return InputError(f"hub_name must be a data set of the hub, but: {first_line}")
        if isinstance(error, ValueError):
            return InputError(f"{self.name} must have a readable split {split}, but: {first_line}")
        return HubUnreachableError(self.name, first_line)


def _offline_reason(name: str) -> str | None:
    from huggingface_hub import constants

    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in _TRUE:
            return f"{variable} is set"
    return unanswered(f"{constants.ENDPOINT}/api/datasets/{name}")


def _kept(name: str) -> bool:
    """Whether `datasets` may have a copy: importing it to ask takes seconds."""
    from huggingface_hub import constants

    folder = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
    owner, _, _ = name.rpartition("/")
    return any(folder.glob(f"{owner}___*" if owner else "*"))
