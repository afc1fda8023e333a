"""Optuna Dashboard on a sweep's database, served to this machine alone.

The dashboard has no password and can delete studies. So it listens at 127.0.0.1 unless remote
access is allowed, and requests from pages of other sites are refused (see sweep.dashboard.access).
"""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from optuna.trial import FrozenTrial

from gpt.errors import InputError
from sweep.analysis.trial_stories import attributes_by_trial
from sweep.dashboard.access import THIS_MACHINE, guarded
from sweep.storage.rdb import open_storage

HOST = "127.0.0.1"
PORT = 8080
THREADS = 8  # requests at a time: one that computes importances for seconds holds up no other


def serve(storage: str, host: str = HOST, port: int = PORT, *, allow_remote: bool = False) -> None:
    """Serve Optuna Dashboard until Ctrl-C, after printing its address. A sweep may write meanwhile.

    Args:
        storage: URL or path of the database.
        host: The address to listen at.
        port: 0 takes a free one.
        allow_remote: Accept a `host` that other machines can reach.

    Raises:
        InputError: there is no such database, `host` is reachable from other machines though
            `allow_remote` is False or is none of this machine, or the port is taken or not allowed.
    """
    opened = open_storage(storage, create=False)
    if host not in THIS_MACHINE and not allow_remote:
        raise InputError(
            f"host must be {' or '.join(THIS_MACHINE)}, since the dashboard has no password, "
            f"but got {host!r}; from elsewhere use: {_tunnel(port)}; or add --allow-remote"
        )
    listening = _listen(host, port)
    from optuna_dashboard import _serializer, wsgi
    from waitress import create_server, wasyncore

    _serializer.serialize_frozen_trial = _by_trial(_serializer.serialize_frozen_trial)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of every queued request
    name, port = listening.getsockname()[:2]
    channels: dict[int, wasyncore.dispatcher] = {}
    create_server(guarded(wsgi(opened), host), map=channels, sockets=[listening], threads=THREADS)
    if host not in THIS_MACHINE:
        print(_warning(host, port), flush=True)
    url = f"http://{name}:{port}/dashboard"
    print(f"dashboard of {storage}: {url} (Ctrl-C ends it)", flush=True)
    try:
        wasyncore.loop(map=channels)  # server.run() would wait for busy threads after Ctrl-C
    except KeyboardInterrupt:
        print()


def _by_trial(serialize: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Hand the dashboard's writer of a trial the study's attributes of this trial alone.

    It looks through all that it is handed, and calls it for each trial with the same.
    """
    last: tuple[dict[str, Any], dict[int, dict[str, Any]]] = {}, {}  # those of one call

    def one(study_id: int, trial: FrozenTrial, attributes: dict[str, Any]) -> dict[str, Any]:
        nonlocal last
        known, of_trials = last
        if known is not attributes:
            of_trials = attributes_by_trial(attributes)
            last = attributes, of_trials
        return serialize(study_id, trial, of_trials.get(trial._trial_id, {}))

    return one


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, socket.gaierror) or getattr(error, "errno", 0) == errno.EADDRNOTAVAIL:
            raise InputError(
                f"host must be a name or an IPv4 address of this machine, but {host}: {reason}."
            ) from None
        raise InputError(f"port {port} must be free, but {reason}; pass another --port.") from None
    return listening


def _tunnel(port: int) -> str:
    return f"ssh -L {port}:127.0.0.1:{port} MACHINE"


def _warning(host: str, port: int) -> str:
    return (
        f"WARNING: everyone who reaches {host} can see and delete every study, without a password. "
        f"Safer: serve at {HOST}, and on your own machine use {_tunnel(port)}"
    )
