"""The dashboard as a process of its own, as `squen-sweep dashboard` starts it, on a free port."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

START = "import sys; from sweep.dashboard.server import serve; serve(sys.argv[1], port=0, **{})"


@contextmanager
def serving(storage: Path, **options: Any) -> Iterator[int]:
    """Serve a database until the end of the block.

    Yields:
        The port.
    """
    command = [sys.executable, "-c", START.format(options), str(storage)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            while not (found := re.search(r"http://[\d.]+:(\d+)/", process.stdout.readline())):
                assert process.poll() is None
            yield int(found[1])
        finally:
            process.terminate()


def ask(
    port: int, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> HTTPResponse:
    """Send a request and return the response, with its `body` read."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    response.body = response.read()
    connection.close()
    return response


def get(port: int, path: str, host: str | None = None) -> HTTPResponse:
    """Get a page, under another Host if one is given."""
    return ask(port, "GET", path, {"Host": host} if host else {})
