"""Stories of a data set on the Hugging Face hub, or of the copy that `datasets` keeps of it.

They are streamed, so that a limit of stories limits the download. `datasets` alone retries for 24 s
without a network, and for minutes where a host accepts and never answers. So the hub is probed
first, and the reading is done by `python -m gpt.data.hub NAME SPLIT`, a process that can be ended.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

from gpt.data.formats import first_line, texts
from gpt.data.network import unreachable_reason
from gpt.errors import InputError, NetworkError

# The hub may answer while its files do not come: `datasets` takes minutes to say so. This is enough
# for its first request of a parquet file, 32 MB, at 2.2 MB/s. Counted from where the reader asks:
# importing `datasets` takes 3 s, and much longer on a busy machine. It applies to "auto" alone,
# which has other text to fall back on: with "hub" the link may be slow, and `datasets` gives up by
# itself.
START_SECONDS = 15.0
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
    """A data set of the hub with a column text, or its local copy if the hub does not answer.

    Raises:
        HubUnreachableError: neither has it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reason = _offline_reason(name)  # for reading the local copy; None: the hub answers
        if self.reason and not _is_cached(name):
            raise HubUnreachableError(name, self.reason)

    def stories(self, split: str, patience: float | None = None) -> Iterator[str]:
        """Yield the column text of one split as it arrives.

        Args:
            split: "train" or "validation".
            patience: Seconds that the first story may take; None: the limits of `datasets`.

        Raises:
            HubUnreachableError: the hub stopped answering, or the local copy does not have it.
            InputError: there is no such data set, split or column.
        """
        offline = dict.fromkeys(_OFFLINE, "1" if self.reason else "0")
        command = [sys.executable, "-m", "gpt.data.hub", self.name, split]
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
                    alarm.cancel()
                    if not line.endswith(b"\n"):  # the reader was killed in the middle of it
                        said = {"unreachable": "the reading broke off"}
                        break
                    said = json.loads(line)
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
        if said and self.reason:
            raise HubUnreachableError(self.name, self.reason)
        if "unreachable" in said:
            raise HubUnreachableError(self.name, said["unreachable"])
        if "unusable" in said:
            raise InputError(said["unusable"])


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


def _read(name: str, split: str) -> Iterator[str | dict[str, str] | None]:
    """Yield None at the start, the stories of a split, then {} or the reason for the end."""
    from datasets.exceptions import DatasetNotFoundError

    yield None
    try:
        yield from texts(name, name, split=split)
        yield {}
    except InputError as error:
        yield {"unusable": str(error)}
    except DatasetNotFoundError as error:
        yield {"unusable": f"hub_name must be a data set of the hub, but: {first_line(error)}"}
    except ValueError as error:
        yield {"unusable": f"{name} must have a readable split {split}, but: {first_line(error)}"}
    except Exception as error:  # requests', httpx', aiohttp's, fsspec's own
        yield {"unreachable": first_line(error)}


if __name__ == "__main__":
    for said in _read(*sys.argv[1:]):
        print(json.dumps(said), flush=said is None)
