"""The one that asks and tells: ask -> launch -> report -> prune -> tell, up to the study's total.

One driver per study is the only writer of its storage; trial processes know nothing of Optuna. It
tails their events.jsonl, so a driver that dies loses nothing: the next one adopts the processes
that still train and continues the others from their checkpoints, under the same numbers.
"""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from gpt.config import DataConfig
from gpt.data.dataset import prepare
from gpt.errors import BusyError, DiskError, InputError
from gpt.events import Event, evaluation_of, read_events
from gpt.system.files import disk_error
from gpt.system.signals import noted
from sweep.analysis import results
from sweep.backends.local import Slot, TrialProcess, cuda_devices, plan_slots, resolve_device
from sweep.search.pruners import SHADOW, is_shadow, may_stop_at, should_prune
from sweep.search.samplers import next_arm, next_params
from sweep.storage.lock import only_driver
from sweep.storage.rdb import (
    check_storage,
    open_storage,
    record_evaluation,
    sqlite_path,
    storage_url,
)
from sweep.storage.sqlite import in_one_line
from sweep.study.dataset import data_facts, pin_dataset
from sweep.study.paths import DEFAULT_STORAGE
from sweep.study.spec import StudySpec
from sweep.tuner.callback import Listener
from sweep.tuner.clock import awake_seconds
from sweep.tuner.limits import Limits, Watchdog
from sweep.tuner.start import check_before_writing, claimed, settled
from sweep.tuner.summary import Summary, header, summary_of
from sweep.tuner.telling import Teller
from sweep.tuner.trial import Running, configure, describe, with_half_the_micro_batch, write_config

POLL_SECONDS = 0.03  # between two looks at the events; a look costs well under a millisecond
MAX_CRASHES = 2  # at the same step, until a trial counts as failed


def run(
    spec: StudySpec,
    data: DataConfig,
    *,
    trials: int,
    listener: Listener,
    storage: str = DEFAULT_STORAGE,
    runs: Path = Path("runs"),
    device: str = "auto",
    workers: int | None = None,
    limits: Limits | None = None,
    wait: bool = False,
) -> Summary:
    """Bring a study to `trials` trials in total, continuing whatever an earlier call left.

    Args:
        spec: The study, resolved for the kind of `device`.
        data: Which text; "auto" takes the hub or else the built-in corpus.
        trials: Total of the study: complete, pruned and failed.
        listener: Told what happens.
        storage: URL or path of the database.
        runs: Run directories go to runs/<study>/<trial number>.
        device: "auto", "cpu", "cuda" or "cuda:N".
        workers: Trials at a time; None chooses.
        limits: How long things may take.
        wait: Wait for another process that runs this study, instead of being refused.

    Raises:
        InputError: one of these cannot work.
        BusyError: another process runs this study, or holds its database.
        DataError: the database is damaged, or of another version of Optuna.
        DiskError: the runs or the database cannot be written; trials wait at their checkpoints.
    """
    if trials < 1:
        raise InputError(f"trials must be at least 1, but got {trials}.")
    with driving(spec, data, listener, storage, runs, device, workers, limits, wait) as driver:
        return driver.run(trials)


@contextmanager
def driving(
    spec: StudySpec,
    data: DataConfig,
    listener: Listener,
    storage: str = DEFAULT_STORAGE,
    runs: Path = Path("runs"),
    device: str = "auto",
    workers: int | None = None,
    limits: Limits | None = None,
    wait: bool = False,
) -> Iterator["Driver"]:
    """The only driver of a study that is open and checked; see `run` for arguments and errors."""
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, but got {workers}.")
    slots = plan_slots(resolve_device(device), workers, cuda_devices())
    check_storage(storage)
    path = sqlite_path(storage_url(storage))
    with listener, in_one_line(storage, path, runs), ExitStack() as stack:
        spec = settled(spec, storage, slots[0].device)
        tokens = prepare(data, listener.message)  # bad data is found before anything is written
        tokens.require(spec.block_size)
        kind = slots[0].device.partition(":")[0]
        facts = data_facts(tokens, spec)
        check_before_writing(storage, spec, facts, kind, runs / spec.name)
        opened = open_storage(storage, create=True)
        patience = listener.message if wait else None
        stack.enter_context(only_driver(runs / spec.name, spec.name, patience))
        study = claimed(opened, spec, facts, kind, runs / spec.name)
        source = pin_dataset(data, tokens)
        driver = Driver(study, opened, spec, source, slots, runs, listener, limits)
        listener.opened(study, opened)
        listener.header(header(spec, tokens, slots, storage))
        if tokens.meta.notice:
            listener.notice(tokens.meta.notice)
        yield driver


class Driver:
    """The loop over slots. `run` above is the way in."""

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        spec: StudySpec,
        data: DataConfig,
        slots: list[Slot],
        runs: Path,
        listener: Listener,
        limits: Limits | None = None,
    ) -> None:
        self.study = study
        self.storage = storage
        self.spec = spec
        self.data = data
        self.slots = slots
        self.runs = runs
        self.listener = listener
        self.running: list[Running] = []
        self.signals: list[int] = []  # received so far
        self.announced = False  # that the sweep is stopping
        self.teller = Teller(study, listener)
        self.watchdog = Watchdog(limits or Limits())
        self.disk: DiskError | None = None  # why no trial can be written

    def run(self, total: int) -> Summary:
        """Launch, follow and tell until `total` trials are finished or a signal says stop."""
        started = time.monotonic()
        self.study.set_user_attr("n_trials", max(total, self.study.user_attrs.get("n_trials", 0)))
        pending = self._unfinished()
        complete = not pending and len(self.study.get_trials(deepcopy=False)) >= total
        self._show_counts(total)
        self._stop_the_surplus(pending)
        with noted(self.signals):
            try:
                while not complete:
                    self._obey_signals()
                    ended = self._follow_all()
                    self.teller.give_up_if_everything_fails(self.runs / self.spec.name)
                    if not self.stopping:
                        self._fill_slots(pending, total)
                    if ended:
                        self._show_counts(total)  # which may take its time, so no slot waits for it
                    if not self.running:
                        break
                    time.sleep(POLL_SECONDS)
            finally:
                self._leave_nobody_behind()
                self._put_back()
        seconds = time.monotonic() - started
        if self.disk is not None:
            raise self.disk
        self._add_wall_seconds(seconds)
        late = self.watchdog.time_is_up
        return summary_of(self.study, total, seconds, complete, self.signals, late)

    @property
    def stopping(self) -> bool:
        """Whether no trial may be launched any more, and those that train shall stop."""
        return bool(self.signals) or self.watchdog.time_is_up or self.disk is not None

    def _leave_nobody_behind(self) -> None:
        """After an error: trials stop at a checkpoint, and are waited for; a signal ends that."""
        while self.running:
            for running in self.running:
                if running.asked is None:
                    running.stop()
                if self.signals:
                    running.process.kill()
                self.watchdog.watch(running)
            self.running = [running for running in self.running if running.process.alive]
            time.sleep(POLL_SECONDS)

    def _put_back(self) -> None:
        """After an error: trials wait for the next call, unless the database is what failed."""
        with suppress(sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self.storage.set_trial_state_values(frozen._trial_id, TrialState.WAITING)

    def _stop_the_surplus(self, pending: list[FrozenTrial]) -> None:
        """Processes that a killed driver left, more than there are slots: they go on in turn."""
        for frozen in pending[len(self.slots) :]:
            if process := TrialProcess.find(self._run_dir(frozen)):
                process.stop()

    def _run_dir(self, frozen: FrozenTrial) -> Path:
        return self.runs / self.spec.name / str(frozen.number)

    # --- launching ---------------------------------------------------------------------------

    def _fill_slots(self, pending: list[FrozenTrial], total: int) -> None:
        """Continue what an earlier call left, then ask for new trials."""
        taken = {running.slot.index for running in self.running}
        for slot in self.slots:
            if slot.index in taken:
                continue
            if pending:
                self._launch(pending.pop(0), slot)
            elif len(self.study.get_trials(deepcopy=False)) < total:
                self._launch(self._ask(), slot)

    def _ask(self) -> FrozenTrial:
        """A new trial, stored as RUNNING in one transaction with all that it needs."""
        arm = next_arm(self.study, self.spec)
        params, origin = next_params(self.study, self.spec, arm)
        self.spec.train_config(params, self.data, "cpu", 1)  # one that cannot be is not stored
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=self.spec.distributions(params),
                user_attrs={"arm": arm, "origin": origin},
            )
        )
        return self.study.get_trials(deepcopy=False)[-1]

    def _launch(self, frozen: FrozenTrial, slot: Slot) -> None:
        """Train a trial in a slot: new, to be continued, or its process still trains."""
        if frozen.state == TrialState.WAITING:
            self.storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        trial = Trial(self.study, frozen._trial_id)
        run_dir = self._run_dir(frozen)
        config = configure(trial, run_dir, slot, self.spec, self.data)
        adopted = TrialProcess.find(run_dir)
        earlier, offset = ([], 0) if adopted else read_events(run_dir)
        process = adopted or TrialProcess.start(run_dir, slot)
        running = Running(trial, frozen.user_attrs["arm"], run_dir, config, slot, process, offset)
        describe(trial, run_dir, config)  # it trains already
        running.halved = "micro_batch" in frozen.user_attrs
        if frozen.intermediate_values:
            running.last = max(frozen.intermediate_values.items())
        self.running.append(running)
        self.listener.trial_started(frozen.number, running.arm, frozen.params, config.max_steps)
        self._hear(running, earlier)  # of earlier processes, so their ends are not this one's
        running.end = None

    def _unfinished(self) -> list[FrozenTrial]:
        """Trials that an earlier call left, oldest first."""
        states = (TrialState.RUNNING, TrialState.WAITING)
        return self.study.get_trials(deepcopy=False, states=states)

    # --- following ---------------------------------------------------------------------------

    def _follow_all(self) -> bool:
        """Hear all; whether a process has ended."""
        ended = False
        for running in list(self.running):
            alive = running.process.alive  # asked first: what it wrote last is then surely read
            self._read_events(running)
            if alive:
                self.watchdog.watch(running)
            else:
                self.running.remove(running)
                self._conclude(running)
                ended = True
        return ended

    def _read_events(self, running: Running) -> None:
        events, running.offset = read_events(running.run_dir, running.offset)
        if events:
            running.heard = awake_seconds()
        self._hear(running, events)

    def _hear(self, running: Running, events: list[Event]) -> None:
        for event in events:
            kind = event["event"]
            if kind == "evaluation":
                self._report(running, event)
            elif kind == "note":
                self.listener.message(f"trial {running.trial.number} {event['message']}")
            elif kind in ("done", "stopped", "error"):
                running.end = event
            elif kind == "start":
                running.end = None

    def _report(self, running: Running, event: Event) -> None:
        """Store an evaluation that is new, and prune if it is hopeless."""
        evaluation, number = evaluation_of(event), running.trial.number
        seen = running.last is not None and evaluation.step <= running.last[0]
        if seen or running.pruned:
            return
        value = getattr(evaluation, self.spec.metric)
        running.last = evaluation.step, value
        record_evaluation(self.storage, self.study.study_name, number, evaluation)
        running.trial.report(self.teller.capped(value), evaluation.step)
        self.listener.evaluation(number, evaluation)
        if may_stop_at(self.spec, evaluation.step) and should_prune(self.study, self.spec, number):
            self._stop_or_watch(running, evaluation.step)

    def _stop_or_watch(self, running: Running, step: int) -> None:
        """Stop a hopeless trial, or let it run on as a shadow."""
        if is_shadow(self.spec, running.trial.number):
            running.trial.set_user_attr(SHADOW, step)
            return
        running.pruned = True
        running.stop()

    # --- telling -----------------------------------------------------------------------------

    def _conclude(self, running: Running) -> None:
        """A process has ended: tell its trial, or start it again, or leave it for the next call."""
        end = running.end or {}
        if running.pruned:
            step, value = running.last or (0, float(running.config.vocab_size))
            reason = f"above the median of its arm at step {step}"
            self.teller.tell(running, TrialState.PRUNED, "pruned", value, reason)
        elif end.get("event") == "done" and running.last:
            value = running.last[1]
            final = value if math.isfinite(value) else self.teller.capped(value)
            self.teller.tell(running, TrialState.COMPLETE, "complete", final, None)
        elif end.get("outcome") == "diverged":
            self.teller.tell_worst(running, "diverged", end["step"], end["message"])
        elif end.get("outcome") == "oom":
            self._retry_smaller(running, end)
        elif running.overdue:
            self.teller.tell_worst(running, "timeout", 0, running.overdue)
        elif end.get("outcome") == "disk" or running.process.exit_code == DiskError.exit_code:
            self.disk = disk_error(running.run_dir, end.get("message"))
            self._start_again(running)  # by the next call
        elif end.get("event") == "stopped" or running.process.exit_code == BusyError.exit_code:
            self._start_again(running)  # no crash: somebody stopped it, or trains it elsewhere
        elif self.stopping or running.process.obeyed:
            self._start_again(running)
        else:
            self._retry_or_fail(running, end)

    def _start_again(self, running: Running) -> None:
        """Continue a trial in its slot; when the sweep is stopping, the next call does."""
        if self.stopping:
            self.storage.set_trial_state_values(running.trial._trial_id, TrialState.WAITING)
            return
        running.start_again()
        self.running.append(running)

    def _retry_smaller(self, running: Running, end: Event) -> None:
        """Once with half the micro-batch, which is the same training in less memory."""
        smaller = None if running.halved else with_half_the_micro_batch(running.config)
        if smaller is None:
            self.teller.tell_worst(running, "oom", end["step"], end["message"])
            return
        write_config(running.run_dir, smaller)
        running.trial.set_user_attr("micro_batch", smaller.batch_size)
        running.config, running.halved = smaller, True
        self.listener.message(
            f"trial {running.trial.number} ran out of memory; it goes on with batch_size "
            f"{smaller.batch_size} and twice the gradient accumulation"
        )
        self._start_again(running)

    def _retry_or_fail(self, running: Running, end: Event) -> None:
        """A crash is the machine's fault at first, the trial's when it returns at the same step."""
        reason = running.hung or end.get("message") or running.process.exit_reason()
        running.crashes.append(running.last[0] if running.last else 0)
        if running.crashes.count(running.crashes[-1]) < MAX_CRASHES:
            self.listener.message(f"trial {running.trial.number} {reason}; it is started again")
            self._start_again(running)
        elif running.hung:
            self.teller.tell_worst(running, "timeout", 0, f"{reason}, {MAX_CRASHES} times")
        else:
            self.teller.tell(running, TrialState.FAIL, "failed", None, reason)

    # --- signals and figures -----------------------------------------------------------------

    def _obey_signals(self) -> None:
        """Whatever stops the sweep stops its trials at a checkpoint; a second signal, at once."""
        wanted = max(len(self.signals), int(self.stopping))
        for running in self.running:
            if running.told < 2 <= wanted:
                running.process.kill()
            elif running.told < 1 <= wanted:
                running.stop()
            running.told = wanted
        if self.stopping and not self.announced:
            self.announced = True
            why = "the disk is full; " if self.disk else "" if self.signals else "time is up; "
            self.listener.message(f"{why}stopping at a checkpoint; once more to stop at once")

    def _show_counts(self, total: int) -> None:
        finished = sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False))
        self.listener.counts(finished, total, results.best_by_arm(self.study))

    def _add_wall_seconds(self, seconds: float) -> None:
        before = self.study.user_attrs.get("wall_seconds", 0.0)
        self.study.set_user_attr("wall_seconds", before + seconds)
