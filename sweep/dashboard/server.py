"""Optuna Dashboard on a sweep's database, for this machine alone. Knows nothing of studies.

The dashboard has no password and can delete studies. So it is bound to 127.0.0.1 unless told
otherwise, and pages of other sites are turned away (see sweep.dashboard.access).
"""

from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from gpt.errors import InputError
from sweep.dashboard.access import THIS_MACHINE, guarded
from sweep.dashboard.arm_views import read_only, with_arm_views
from sweep.dashboard.artifacts import artifact_store
from sweep.storage.rdb import open_storage

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

HOST = "127.0.0.1"
PORT = 8080


def serve(storage: str, host: str = HOST, port: int = PORT, *, anyone: bool = False) -> None:
    """Serve Optuna Dashboard until Ctrl-C, and print where. A sweep may write meanwhile.

    Args:
        storage: URL or path of the database.
        host: The address to listen at.
        port: 0 takes a free one.
        anyone: Whether `host` may be one that other machines reach.

    Raises:
        InputError: there is no such database, or the address cannot be used.
    """
    opened = open_storage(storage, create=False)
    with make_server(opened, host, port, anyone=anyone) as server:
        try:
            if host not in THIS_MACHINE:
                print(_warning(host, server.server_port), flush=True)
            print(f"dashboard of {storage}: {address(server)} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def make_server(
    storage: "RDBStorage", host: str = HOST, port: int = PORT, *, anyone: bool = False
) -> WSGIServer:
    """A server that has its port, and serves when told to.

    Raises:
        InputError: `host` is not this machine alone though it must be, or the port is taken or not
            allowed.
    """
    from optuna_dashboard import wsgi

    if host not in THIS_MACHINE and not anyone:
        raise InputError(
            f"host must be {' or '.join(THIS_MACHINE)}, since the dashboard has no password, "
            f"but got {host!r}; from elsewhere use: {_tunnel(port)}; or add --no-password"
        )
    try:
        server = _ThreadingServer((host, port), _QuietHandler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} must be free, but {reason}; pass another --port.") from None
    views = with_arm_views(storage)  # for the page that compares studies
    app = wsgi(views, artifact_store(storage))
    server.set_app(guarded(read_only(app, views), host))
    return server


def _tunnel(port: int) -> str:
    return f"ssh -L {port}:127.0.0.1:{port} MACHINE"


def _warning(host: str, port: int) -> str:
    return (
        f"WARNING: everyone who reaches {host} can see and delete every study, without a password. "
        f"Safer: serve at {HOST}, and on your own machine use {_tunnel(port)}"
    )


def address(server: WSGIServer) -> str:
    """What to type into a browser."""
    return f"http://{server.server_name}:{server.server_port}/dashboard"


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    """A thread per request: in the dashboard's own server one slow request holds up all others."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name: it can hang without a network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing: the dashboard asks again every few seconds."""
