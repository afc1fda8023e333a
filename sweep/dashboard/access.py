"""Access to a server without a password: people on this machine, and pages that it served itself.

A page of another site can make a browser send requests here. Its Host betrays it when its own name
was made to resolve to this machine (DNS rebinding), its Origin when it only sends.
"""

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

THIS_MACHINE = ("127.0.0.1", "localhost")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # of HTTP: they change nothing


def guarded(app: "WSGIApplication", host: str) -> "WSGIApplication":
    """Wrap an application so that it answers 403 to requests that no user of it can have meant.

    Args:
        app: Any WSGI application.
        host: The address that the server is bound to.
    """

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        why = _refusal(environ, host)
        if why is None:
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [f"{why}\n".encode()]

    return answer


def _refusal(environ: "WSGIEnvironment", host: str) -> str | None:
    """Reason to refuse a request, or None."""
    asked = environ.get("HTTP_HOST", "")
    if not _is_ours(_name(asked), host):
        return f"The dashboard answers to {' and '.join(THIS_MACHINE)} only."
    if environ.get("REQUEST_METHOD") in SAFE_METHODS:
        return None
    origin = environ.get("HTTP_ORIGIN")  # browsers send it with all that may change something
    foreign_site = environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"
    if foreign_site or (origin is not None and origin != f"http://{asked}"):
        return "The dashboard takes changes from its own pages only."
    return None


def _is_ours(name: str, host: str) -> bool:
    """Accept a Host of ours. To rebind, an attacker needs a name: addresses are safe."""
    if name in THIS_MACHINE:
        return True
    return host not in THIS_MACHINE and (name in (host, socket.gethostname()) or _is_address(name))


def _name(host: str) -> str:
    """Return a Host header without its port: "[::1]:8080" -> "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
