"""Optuna's storage on a database server that may restart, be away for a while, or be full.

A sweep waits for it: trials train on meanwhile, and every call is asked again until it is answered.
No call does its work twice, also where the server did it and only the answer was lost.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState

from gpt.errors import BusyError
from sweep.storage.errors import CONNECT_SECONDS, comes_back, is_starting, reason
from sweep.study.format import unseen

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 600  # that a sweep waits for its server; its trials train on
STARTING_SECONDS = 60  # that a command waits for a server that starts or has no connection left
LONGEST_PAUSE = 5.0  # seconds between two calls
# A connection that hangs is found dead after a minute, not after the two hours of TCP.
CONNECTION = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,  # milliseconds
}


class ServerStorage(RDBStorage):
    """Optuna's storage whose calls are asked again while a sweep waits for its server.

    Args:
        url: Of the database.
        name: The storage as the user gave it.
    """

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._notice: Callable[[str], None] | None = None  # None: do not wait
        self._give_up: Callable[[], bool] = bool
        self._patience: float = PATIENCE_SECONDS
        self._waiting = 0  # calls of this process that wait; the first one says so
        self._again: list[Callable[[], None]] = []  # called once the server is back
        super().__init__(url, engine_kwargs={"pool_pre_ping": True, "connect_args": CONNECTION})

    def wait_with(self, notice: Callable[[str], None], give_up: Callable[[], bool]) -> None:
        """Wait for a server that is away from now on, until `give_up` returns True."""
        self._notice, self._give_up = notice, give_up

    def patiently(self, call: Callable[[], Answer]) -> Answer:
        """Return what a call returns that may be made more than once.

        Raises:
            BusyError: the server did not come back in time, or the sweep shall end.
        """
        try:
            return call()
        except (StorageInternalError, sa.exc.SQLAlchemyError) as error:
            if self._notice is None or not comes_back(error):
                raise
            self._waiting += 1
            try:
                return self._wait(call, error, self._notice if self._waiting == 1 else unseen)
            finally:
                self._waiting -= 1

    def _wait(
        self, call: Callable[[], Answer], error: Exception, notice: Callable[[str], None]
    ) -> Answer:
        started, pause = time.monotonic(), 0.1
        notice(f"waiting for storage {self._name}: {reason(error)}; trials train on")
        while time.monotonic() - started < self._patience and not self._give_up():
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                for again in self._again:
                    again()
                answer = call()
            except (StorageInternalError, sa.exc.SQLAlchemyError) as another:
                if not comes_back(another):
                    raise
                error = another
                continue
            notice(f"storage {self._name} answers again")
            return answer
        self._patience = 0.0  # whoever cleans up does not wait as long again
        raise BusyError(
            f"storage {self._name} must answer, but {reason(error)}; trials wait at their "
            f"checkpoints. Run the same command again."
        ) from error

    @contextmanager
    def only_writer(
        self, study: str, patience: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Hold a lock in the database that no other tuner of this study has, on any machine.

        Args:
            study: Its name.
            patience: Called with whom we wait for; None: do not wait.

        Raises:
            BusyError: another tuner holds it.
        """
        key = int.from_bytes(hashlib.sha256(study.encode()).digest()[:8], "big", signed=True)
        held: list[sa.Connection] = []

        def unlock() -> None:
            while held:
                with suppress(sa.exc.SQLAlchemyError):
                    held.pop().invalidate()  # closes it, and with it goes the lock

        def lock() -> None:
            unlock()  # a server that restarted has forgotten it
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
                connection.close()
                raise BusyError(
                    f"study {study!r} must have one tuner, but another machine runs it in this "
                    f"storage; wait for it with --wait, or stop that one with Ctrl-C."
                )
            held.append(connection)

        while not held:
            try:
                lock()
            except BusyError:
                if patience is None:
                    raise
                patience(f"waiting: another machine runs study {study!r}")
                patience = unseen
                time.sleep(LONGEST_PAUSE)
        self._again.append(lock)
        try:
            yield
        finally:
            self._again.remove(lock)
            unlock()

    # --- calls that cannot simply be made again ----------------------------------------------

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> TrialModel:
        """Find the trial that an earlier attempt added, if only the answer to it was lost.

        Its start, in microseconds, is written by the one tuner alone. Optuna itself tries up to
        five times to add a trial.
        """
        if template_trial is not None and template_trial.state == TrialState.RUNNING:
            running = {"study_id": study_id, "state": TrialState.RUNNING}
            for earlier in session.query(TrialModel).filter_by(**running):
                if earlier.datetime_start == template_trial.datetime_start:
                    return cast(TrialModel, earlier)
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Set the state of a trial; one whose answer was lost has it already."""
        calls = 0

        def call() -> bool:
            nonlocal calls
            calls += 1
            try:
                changed = RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                if calls == 1 or self.get_trial(trial_id).state != state:
                    raise
                return True
            return changed or calls > 1

        return self.patiently(call)


def once_started(
    call: Callable[[], Answer], storage: str, notice: Callable[[str], None] | None
) -> Answer:
    """Return what a call returns; wait for a server that starts or has no connection left.

    Args:
        call: May be made more than once.
        storage: As the user gave it.
        notice: Called once with what we wait for; None: do not wait.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it refuses, or does not come up in a minute.
    """
    started = time.monotonic()
    while True:
        try:
            return call()
        except (StorageInternalError, sa.exc.SQLAlchemyError) as error:
            late = time.monotonic() - started > STARTING_SECONDS
            if notice is None or late or not is_starting(error):
                raise
            notice(f"waiting for storage {storage}: {reason(error)}")
            notice = unseen
        time.sleep(1.0)


def _patient(method: Callable[..., Answer]) -> Callable[..., Answer]:
    @functools.wraps(method)
    def wait_for(self: ServerStorage, *args: Any, **kwargs: Any) -> Answer:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return wait_for


# Every other call may be made again: it reads, or writes a value that it overwrites. The last two
# are those that Optuna's cache calls.
_REPEATABLE = BaseStorage.__abstractmethods__ - {"set_trial_state_values"}
for _name in (*_REPEATABLE, "_create_new_trial", "_get_trials"):
    setattr(ServerStorage, _name, _patient(getattr(RDBStorage, _name)))
