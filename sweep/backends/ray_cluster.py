"""A Ray cluster: connecting to it, its nodes, and the named actors of a run directory."""

import hashlib
import logging
import os
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt.errors import InputError, NetworkError

NAMESPACE = "squen-sweep"
CLUSTER_SECONDS = 10.0  # for a cluster to answer

SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # a frame of HTTP/2 (RFC 9113, section 6.5)
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS  # section 3.4

_connected: list[str] = []  # where this process is connected


def connect(address: str | None) -> None:
    """Connect this process to a cluster, or start a Ray on this machine that ends with it.

    Args:
        address: "auto", HOST:PORT or ray://HOST:PORT; None starts one.

    Raises:
        InputError: Ray is not installed, is of another version than the cluster's, or does not
            start.
        NetworkError: nothing answers there within CLUSTER_SECONDS.
    """
    # What its daemons say of a lost node, over many lines, would be printed. We say it in one.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # read with the import
    try:
        import ray
    except ImportError:
        raise InputError(
            "--backend ray must have Ray, but it is not installed; "
            "run: pip install 'squen-sweep[ray]'"
        ) from None
    place = _place_of(address)
    if ray.is_initialized():
        if place in (None, *_connected):
            return
        ray.shutdown()
    if place is not None and not greets(place, CLUSTER_SECONDS / 2):
        raise NetworkError(f"a Ray cluster must answer at {place}, but none does.")
    failed: list[BaseException] = []
    options: dict[str, Any] = {} if place else {"include_dashboard": False}

    def initialize() -> None:
        try:
            ray.init(
                address=address or "local",
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
        except BaseException as error:  # ray also exits
            failed.append(error)

    if place is None:
        initialize()  # in this thread: what it starts dies with the thread that has started it
    else:
        thread = threading.Thread(target=initialize, daemon=True)  # it may never return
        thread.start()
        thread.join(CLUSTER_SECONDS)
        if thread.is_alive():
            raise NetworkError(
                f"Ray must answer at {place} within {CLUSTER_SECONDS:.0f} s, but none does."
            )
    if failed:
        raise InputError(f"Ray must start or connect, but: {sentence(str(failed[0]))}.")
    _connected[:] = [place or ray.get_runtime_context().gcs_address]


def _place_of(address: str | None) -> str | None:
    """Return HOST:PORT of an address; None where a Ray is to be started."""
    if address is None:
        return None
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        place: str | None = canonicalize_bootstrap_address("auto")
        if place is None:
            raise InputError(
                "--ray-address auto must find a Ray cluster on this machine, but there is none; "
                "leave it out to start one, or pass HOST:PORT."
            )
        return place
    match = re.fullmatch(r"(?:ray://)?([\w.-]+:\d{1,5})", address)
    if match is None:
        raise InputError(
            f"--ray-address must be auto, HOST:PORT or ray://HOST:PORT, but got {address!r}."
        )
    return match[1]


def greets(place: str, seconds: float) -> bool:
    """Return whether a server of gRPC, as a head is, answers at HOST:PORT within some seconds.

    It greets who greets it by HTTP/2. Ray itself would try for minutes, and write about it.
    """
    host, _, port = place.rpartition(":")
    with (
        suppress(OSError, OverflowError),
        socket.create_connection((host, int(port)), seconds) as connection,
    ):
        if os.environ.get("RAY_USE_TLS", "0") == "1":
            return True  # it waits for another greeting
        connection.settimeout(seconds)
        connection.sendall(GREETING)
        return connection.recv(9)[3:4] == SETTINGS[3:4]
    return False


def head_address() -> str:
    """Return HOST:PORT of the cluster's head."""
    return _connected[0]


def nodes() -> list[dict[str, float]]:
    """Return what each living node has in all: CPU, GPU and others."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def places(node: Mapping[str, float], need: Mapping[str, float]) -> int:
    """Return how many trials with this need a node has room for, when nothing else runs."""
    counts = []
    for name, amount in need.items():
        has = node.get(name, 0)
        if 0 < amount < 1:  # a share is of one GPU
            counts.append(int(has) * int(1 / amount + 1e-9))
        elif amount:
            counts.append(int(has // amount))
    return min(counts)


def prefix(run_dir: Path) -> str:
    """Return the name of a run directory's actors, but for the number of the attempt."""
    from sweep.storage.location import owner_of_runs  # late: it imports Optuna

    owner = owner_of_runs(run_dir.parent)
    if owner is None:  # it belongs to no study
        owner = hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()
    return f"{run_dir.parent.name}-{owner[:8]}-{run_dir.name}-"


def actors_of(run_dir: Path) -> list[str]:
    """Return the names of a run directory's living actors, the newest attempt last."""
    import ray

    start = prefix(run_dir)
    numbers = [
        int(name.removeprefix(start))
        for name in ray.util.list_named_actors()
        if name.startswith(start) and name.removeprefix(start).isdecimal()
    ]
    return [f"{start}{number}" for number in sorted(numbers)]


def end_actor(name: str) -> None:
    """End an actor, whose process dies with it; nothing where it has ended."""
    import ray

    with suppress(ValueError, ray.exceptions.RayError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE))


def sentence(text: str) -> str:
    """Return the first sentence of what Ray says."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it said nothing")
    return line.partition(". ")[0].rstrip(".")
