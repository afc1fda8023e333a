"""A Hugging Face hub on 127.0.0.1: as much of its protocol as reading data sets needs."""

import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow
from pyarrow import parquet

COMMIT = "f" * 40


def parquet_bytes(column: str, values: list[str], row_group_size: int = 1_000) -> bytes:
    """A parquet file of one column."""
    file = io.BytesIO()
    table = pyarrow.table({column: values})
    parquet.write_table(table, file, row_group_size=row_group_size, compression="none")
    return file.getvalue()


class FakeHub(ThreadingHTTPServer):
    """Serves data sets, each a dictionary of files; counts requests, and bytes sent of each.

    Of those that are stuck, it tells everything and sends no parquet file.
    """

    daemon_threads = True

    def __init__(self, data_sets: dict[str, dict[str, bytes]], stuck: Collection[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        readme = {"README.md": b"---\nlicense: mit\n---\n"}
        self.data_sets = {name: readme | files for name, files in data_sets.items()}
        self.stuck = stuck
        self.bytes_sent = dict.fromkeys(data_sets, 0)
        self.requests = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        super().__exit__(*error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_GET(self) -> None:
        self.server.requests += 1
        path = self.path.partition("?")[0]
        match = re.fullmatch(r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/(\w+)/[^/]+)?/?(.*)", path)
        self.name, what, below = match.groups() if match else ("", "", "")
        if self.name not in self.server.data_sets:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif what == "resolve":
            self._file(below)
        elif what == "tree":
            self._tree(below)
        else:
            files = [{"rfilename": file} for file in self.files]
            self._json({"id": self.name, "sha": COMMIT, "siblings": files, "tags": []})

    do_HEAD = do_GET  # noqa: N815

    @property
    def files(self) -> dict[str, bytes]:
        return self.server.data_sets[self.name]

    def _file(self, file: str) -> None:
        content = self.files.get(file)
        if self.name in self.server.stuck and file.endswith(".parquet"):
            time.sleep(30)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], headers)
        else:
            self._send(200, content, headers)

    def _tree(self, folder: str) -> None:
        """The files and folders directly in a folder."""
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for file, content in self.files.items():
            if not file.startswith(prefix):
                continue
            first, _, below = file.removeprefix(prefix).partition("/")
            kind, size = ("directory", 0) if below else ("file", len(content))
            entries[first] = {"type": kind, "path": prefix + first, "oid": "0" * 40, "size": size}
        if entries:
            self._json(list(entries.values()))
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.server.bytes_sent[self.name] = self.server.bytes_sent.get(self.name, 0) + len(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""
