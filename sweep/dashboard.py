"""Optuna Dashboard on a sweep's database, for this machine alone. Knows nothing of studies.

The dashboard has no password and can delete studies. So it is bound to 127.0.0.1, and a page of
another site whose name was made to resolve to 127.0.0.1 is turned away by its Host header.
"""

from collections.abc import Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from gpt.errors import InputError
from sweep.storage import open_storage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from optuna.storages import BaseStorage

HOST = "127.0.0.1"
PORT = 8080
THIS_MACHINE = ("127.0.0.1", "localhost")


def serve(storage: str, host: str = HOST, port: int = PORT) -> None:
    """Serve Optuna Dashboard until Ctrl-C, and print where. A sweep may write meanwhile.

    Args:
        storage: URL or path of the database.
        host: One of THIS_MACHINE.
        port: 0 takes a free one.

    Raises:
        InputError: there is no such database, or the address cannot be used.
    """
    with make_server(open_storage(storage, create=False), host, port) as server:
        try:
            print(f"dashboard of {storage}: {address(server)} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def make_server(storage: "BaseStorage", host: str = HOST, port: int = PORT) -> WSGIServer:
    """A server that has its port, and serves when told to.

    Raises:
        InputError: `host` is not this machine alone, or the port is taken or not allowed.
    """
    from optuna_dashboard import wsgi

    if host not in THIS_MACHINE:
        raise InputError(
            f"host must be {' or '.join(THIS_MACHINE)}, since the dashboard has no password, "
            f"but got {host!r}; from elsewhere use: ssh -L {port}:127.0.0.1:{port} MACHINE"
        )
    try:
        server = _ThreadingServer((host, port), _QuietHandler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} must be free, but {reason}; pass another --port.") from None
    server.set_app(_refusing_other_hosts(wsgi(storage)))
    return server


def address(server: WSGIServer) -> str:
    """What to type into a browser."""
    return f"http://{server.server_name}:{server.server_port}/dashboard"


def _refusing_other_hosts(app: "WSGIApplication") -> "WSGIApplication":
    def guarded(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        if environ.get("HTTP_HOST", "").partition(":")[0] in THIS_MACHINE:
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"The dashboard answers to 127.0.0.1 and localhost only.\n"]

    return guarded


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
