"""Stories of a data set on the Hugging Face hub, or of the copy that `datasets` keeps of it.

They are streamed, so that a limit of stories limits the download. `datasets` alone retries for 24 s
without a network, and for minutes where a host accepts and never answers. So the hub is probed
first, and the reading is done by `python -m gpt.data.hub NAME SPLIT OPTIONS`, a process that can be
ended.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

from gpt.data.formats import column_of, first_line, quiet
from gpt.data.network import unreachable_reason
from gpt.errors import InputError, NetworkError

# The hub may answer while its files do not come: `datasets` takes minutes to say so. This is enough
# for its first request of a parquet file, 32 MB, at 2.2 MB/s. Counted from where the reader asks:
# importing `datasets` takes 3 s, and much longer on a busy machine. It applies to "auto" alone,
# which has other text to fall back on: with "hub" the link may be slow, and `datasets` gives up by
# itself.
START_SECONDS = 15.0
HELD_OUT = ("validation", "valid", "val", "dev", "test")  # splits that validate, best first
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its variables


class HubUnreachableError(NetworkError):
    """The hub does not answer, and there is no local copy.

    Attributes:
        reason: The message without the way out.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.reason = f"the hub's data set {name} cannot be had: {reason}"
        super().__init__(
            f"{self.reason}; give --data PATH (.txt, .jsonl or .parquet stories) or --data "
            f"built-in, or fix the connection (HF_ENDPOINT, HTTPS_PROXY, HF_HUB_OFFLINE)."
        )


class HubDataset:
    """A data set of the hub, or its local copy if the hub does not answer.

    Args:
        name: OWNER/SET, or SET.
        config: Its configuration; None where it has only one.
        column: Column of the text; None: text, or the only one that holds strings.

    Attributes:
        splits: Names of all its splits, once stories were asked for.

    Raises:
        HubUnreachableError: neither has it.
    """

    def __init__(self, name: str, config: str | None = None, column: str | None = None) -> None:
        self.name = name
        self.splits: list[str] = []
        self._config = config
        self._column = column
        self.reason = _offline_reason(name)  # for reading the local copy; None: the hub answers
        if self.reason and not _is_cached(name):
            raise HubUnreachableError(name, self.reason)

    def stories(
        self, split: str, patience: float | None = None, *, held_out: bool = False
    ) -> Iterator[str]:
        """Yield the column of the text of one split as it arrives.

        Args:
            split: The name of a split, such as "train".
            held_out: Read the split that validates beside this one, if there is any, instead.
            patience: Seconds that the first story may take; None: the limits of `datasets`.

        Raises:
            HubUnreachableError: the hub stopped answering, or the local copy does not have it.
            InputError: there is no such data set, configuration, split or column.
        """
        offline = dict.fromkeys(_OFFLINE, "1" if self.reason else "0")
        options = json.dumps({"config": self._config, "column": self._column, "held_out": held_out})
        command = [sys.executable, "-m", "gpt.data.hub", self.name, split, options]
        said: Any = {}
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | offline,
        ) as reader:
            assert reader.stdout
            reader.stdout.readline()  # it has imported `datasets`
            alarm = Timer(patience or 0, reader.kill)
            if patience is not None:
                alarm.start()
            try:
                for line in reader.stdout:
                    if not line.endswith(b"\n"):  # the reader was killed in the middle of it
                        said = {"unreachable": "the reading broke off"}
                        break
                    said = json.loads(line)
                    if isinstance(said, list):
                        self.splits = said
                        continue
                    alarm.cancel()
                    if not isinstance(said, str):
                        break
                    yield said
                else:
                    late = reader.wait() < 0 and patience is not None
                    why = (
                        f"no story arrived within {patience:g} s"
                        if late
                        else "the reading broke off"
                    )
                    said = {"unreachable": why}
            finally:
                alarm.cancel()
                reader.kill()
        self._check_end(said)

    def _check_end(self, said: dict[str, str]) -> None:
        """Raise the error that the reader's last line reports, if any."""
        if "unusable" in said:
            raise InputError(said["unusable"])
        if said and self.reason:  # the local copy does not have it
            raise HubUnreachableError(self.name, self.reason)
        if "unreachable" in said:
            raise HubUnreachableError(self.name, said["unreachable"])
        if "unreadable" in said:
            raise InputError(said["unreadable"])


def validation_split(train: str, splits: Iterable[str]) -> str | None:
    """Choose the split that validates beside a training split; None where there is none.

    Beside train_sft it is the first of validation_sft, valid_sft, val_sft, dev_sft, test_sft,
    validation, valid, val, dev and test.
    """
    there = {split.lower(): split for split in splits if split != train}
    wanted = [train.lower().replace("train", word) for word in HELD_OUT]
    return next((there[name] for name in (*wanted, *HELD_OUT) if name in there), None)


def _offline_reason(name: str) -> str | None:
    for variable in _OFFLINE:
        if os.environ.get(variable, "").upper() in _TRUE:
            return f"{variable} is set"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return unreachable_reason(f"{endpoint.rstrip('/')}/api/datasets/{name}")


def _is_cached(name: str) -> bool:
    """Return whether `datasets` may have a copy; importing it to ask takes seconds."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(caches) / "huggingface"
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home) / "datasets")
    owner, _, _ = name.rpartition("/")
    return any(folder.glob(f"{owner}___*" if owner else "*"))


def _read(name: str, split: str, options: str) -> Iterator[str | list[str] | dict[str, str] | None]:
    """Yield None at the start, all splits, the stories of one, then {} or why it ends."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    yield None
    chosen = json.loads(options)
    quiet()
    try:
        splits = datasets.load_dataset(name, chosen["config"], streaming=True)
        yield list(splits)
        if chosen["held_out"]:
            beside = validation_split(split, splits)
            if beside is None:
                yield {}
                return
            split = beside
        if split not in splits:
            there = ", ".join(splits)
            yield {"unusable": f"split must be one of {there} in {name}, but got {split!r}."}
            return
        yield from column_of(name, splits[split], chosen["column"])
        yield {}
    except InputError as error:
        yield {"unusable": str(error)}
    except DatasetNotFoundError as error:
        yield {"unreadable": f"hub_name must be a data set of the hub, but: {first_line(error)}"}
    except ValueError as error:  # no configuration, where there are several; no files to read
        yield {"unreadable": f"{name} must be a data set that can be read, but: {_choices(error)}"}
    except Exception as error:  # requests', httpx', aiohttp's, fsspec's own
        yield {"unreachable": first_line(error)}


def _choices(error: ValueError) -> str:
    """Return an error's message on one line, with the option that names a configuration."""
    text = " ".join(str(error).split())
    return f"{text}; name one with hub_config." if "config" in text.lower() else text


if __name__ == "__main__":
    for said in _read(*sys.argv[1:]):
        print(json.dumps(said), flush=not isinstance(said, str))
