"""A PostgreSQL server of a test's own, and a wire to it that stalls or breaks."""

import os
import random
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa


def binary(name: str) -> str | None:
    """Path of one of the server's programs, which Debian keeps off the PATH; None: not there."""
    packaged = map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or max(packaged, default=None)


def free_port() -> int:
    """A port below those that the kernel gives to connections, which nobody takes meanwhile."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Server:
    """Listens on a port of this machine alone; anybody may be `postgres` there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        # The server refuses to run as root: then it is the user that its package made.
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if os.geteuid():
            self._as = []
        else:
            shutil.chown(folder, "postgres", "postgres")
        self._call("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N")
        settings = f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nfsync = off\n"
        settings += f"unix_socket_directories = '{folder}'\n"
        path = folder / "data" / "postgresql.conf"
        path.write_text(path.read_text() + settings)

    def start(self) -> None:
        self._control("start")

    def be_there(self) -> None:
        with suppress(subprocess.CalledProcessError):  # it runs
            self.start()

    def stop(self) -> None:
        """End it as a crash does: without a word to anybody; it recovers when it starts again."""
        self._control("stop", "-m", "immediate")

    def url(self, database: str, port: int | None = None, user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@127.0.0.1:{port or self.port}/{database}"

    def execute(self, database: str, *statements: str) -> None:
        engine = sa.create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))
        engine.dispose()

    def _control(self, *words: str) -> None:
        log = str(self.folder / "log")
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-w", *words)

    def _call(self, name: str, *words: str) -> None:
        command = [*self._as, str(binary(name)), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)


@contextmanager
def server_in(folder: Path) -> Iterator[Server]:
    """Start a server; stop it at the end, if it still runs."""
    server = Server(folder)
    server.start()
    yield server
    with suppress(subprocess.CalledProcessError):
        server.stop()


class Wire:
    """Passes bytes on between clients and the server.

    Attributes:
        stalls: While it is set, nothing is passed on, and nobody is told.
        lose_answer: Once set, the next commit reaches the server and its answer reaches nobody.
        lost: How many answers were lost.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.stalls, self.lose_answer, self.lost = threading.Event(), threading.Event(), 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        address = ("127.0.0.1", self._server.port)
        with client, suppress(OSError), socket.create_connection(address) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                while self.stalls.is_set():
                    time.sleep(0.01)
                source = ready[0]
                if not (data := source.recv(65536)):
                    return
                if source is client and self.lose_answer.is_set() and b"COMMIT" in data:
                    self.lose_answer.clear()
                    client.close()
                    server.sendall(data)
                    server.recv(65536)  # it is committed
                    self.lost += 1
                    return
                (server if source is client else client).sendall(data)
