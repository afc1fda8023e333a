"""The loop of a sweep: ask -> launch -> report -> prune -> study.tell, up to its total.

One tuner per study is the only writer of its storage; trial processes know nothing of Optuna. It
follows their events, so a tuner that dies loses nothing: the next one adopts the processes that
still train and continues the others from their checkpoints, under the same numbers.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from gpt.errors import BusyError, InputError, StorageError, TrialsFailedError
from gpt.events import Evaluation, Event
from gpt.system.signals import noted
from sweep.analysis import results
from sweep.backends.base import Job, Slot
from sweep.search.known_trials import report_evaluation
from sweep.search.new_trials import add_trial, complete_enqueued
from sweep.search.pruners import is_shadow, may_stop_at, should_prune
from sweep.storage.rdb import wait_for
from sweep.storage.schema import set_study_attrs, set_trial_attrs, study_attrs, trial_attrs
from sweep.study.metric import metric_of
from sweep.tuner.callback import (
    Callback,
    Counts,
    Evaluated,
    Message,
    TrialEnding,
    TrialFinished,
    TrialStarted,
)
from sweep.tuner.exits import Ending, Exit, Intent, ending_of, last_end
from sweep.tuner.limits import Clock, SuspendAwareClock, is_over
from sweep.tuner.options import RunOptions
from sweep.tuner.start import OpenStudy
from sweep.tuner.summary import Summary, summary_of
from sweep.tuner.trial import TrialRun, is_overdue, must_be_killed

POLL_SECONDS = 0.03  # between two polls of the backend, which cost well under a millisecond
POLL_SECONDS_PER_RUN = 3e-4  # more: 1,000 trials take 15 ms to poll, and have time
LAUNCH_SECONDS = 0.2  # of launching or of finishing trials, until all are heard again
MAX_CRASHES = 2  # at the same step, until a trial counts as failed
MAX_IN_VAIN = 5  # processes in a row that others ended before one step more, likewise
MAX_FAILURES = 3  # trials that fail one after another, until the sweep gives up


class Tuner:
    """The loop over slots.

    Args:
        opened: The study, its trainer and its backend.
        options: Limits of the call.
        callback: Receives the events of the sweep.
        clock: See sweep.tuner.run.run.
    """

    def __init__(
        self,
        opened: OpenStudy,
        options: RunOptions,
        callback: Callback,
        clock: Clock | None = None,
    ) -> None:
        self.study = opened.study
        self.storage = opened.storage
        self.spec = opened.spec
        self.folder = opened.folder
        self.trainer = opened.trainer
        self.backend = opened.backend
        self.slots = opened.slots
        self.worst = opened.facts.worst
        self.metric = metric_of(opened.spec.model_dump(mode="json"))
        self.limits = options.limits
        self.callback = callback
        self.clock = clock or SuspendAwareClock()
        longest = results.longest(self.study)
        if self.spec.max_steps is None and longest:
            self.spec = self.spec.with_max_steps(longest)
        self.runs: list[TrialRun] = []  # in their slots
        self.signals: list[int] = []  # received so far
        self.failures: list[str] = []  # trials that failed one after another, until now
        self.disk: StorageError | None = None  # why no trial can be written
        self._stop_announced = False
        self._behind = False  # there is more to launch or to finish than there was time for
        self._started = time.monotonic()

    def run(self, total: int) -> Summary:
        """Launch and follow trials until `total` are finished, or a signal or a limit says stop."""
        set_study_attrs(self.study, n_trials=max(total, study_attrs(self.study).n_trials or 0))
        pending = self._unfinished()
        complete = not pending and len(self.study.get_trials(deepcopy=False)) >= total
        self._send_counts(total)
        self._adopt(pending)
        with noted(self.signals):
            wait_for(self.storage, self._say, lambda: bool(self.signals))
            try:
                while not complete:
                    self._pass_on_signals()
                    self._behind = False
                    ended = self._follow()
                    self._give_up_if_everything_fails()
                    if not self.stopping:
                        self._fill_slots(pending, total)
                    if ended:
                        self._send_counts(total)  # which may take time, so no slot waits for it
                    if not self.runs:
                        break
                    if not self._behind:
                        time.sleep(POLL_SECONDS + len(self.runs) * POLL_SECONDS_PER_RUN)
            finally:
                self._leave_nobody_behind()
                self._put_back()
        seconds = time.monotonic() - self._started
        if self.disk is not None:
            raise self.disk
        set_study_attrs(self.study, wall_seconds=study_attrs(self.study).wall_seconds + seconds)
        return summary_of(self.study, total, seconds, complete, self.signals, self.time_is_up)

    @property
    def time_is_up(self) -> bool:
        """True once the sweep is over its own limit."""
        return is_over(self.limits.sweep, time.monotonic() - self._started)

    @property
    def stopping(self) -> bool:
        """True once no trial may be launched and those that train shall stop."""
        return bool(self.signals) or self.time_is_up or self.disk is not None

    def _leave_nobody_behind(self) -> None:
        """After an error, stop trials at a checkpoint and wait for them; a signal ends that."""
        for run_dir in self._adopted:  # also those that have not come into a slot
            self.backend.stop(run_dir)
        while self.runs:
            for run in self.runs:
                self._stop(run, Intent.STOP)
                if self.signals or must_be_killed(run, self.limits, self.clock()):
                    self.backend.kill(run.run_dir)
            status = self.backend.poll()
            self.runs = [run for run in self.runs if status[run.run_dir].alive]
            time.sleep(POLL_SECONDS)

    def _put_back(self) -> None:
        """After an error, leave trials to the next call, unless the database is what failed."""
        with suppress(sqlalchemy.exc.SQLAlchemyError, StorageInternalError, BusyError):
            for frozen in self._unfinished():
                if frozen.state == TrialState.RUNNING:
                    self.study._storage.set_trial_state_values(frozen._trial_id, TrialState.WAITING)

    # --- launching ---------------------------------------------------------------------------

    def _unfinished(self) -> list[FrozenTrial]:
        """Return trials that an earlier call left or somebody enqueued, without other programs'."""
        states = (TrialState.RUNNING, TrialState.WAITING)
        return [
            frozen
            for frozen in self.study.get_trials(deepcopy=False, states=states)
            if frozen.state == TrialState.WAITING or trial_attrs(frozen).arm is not None
        ]

    def _job(self, frozen: FrozenTrial, slot: Slot) -> Job:
        run_dir = self.folder / str(frozen.number)
        command = self.trainer.command(run_dir, slot.processes)
        return Job(run_dir, command, slot, self.trainer.module, self.trainer.tokens)

    def _adopt(self, pending: list[FrozenTrial]) -> None:
        """Find what a killed tuner left running; processes beyond our slots stop for now."""
        jobs = [self._job(frozen, self.slots[0]) for frozen in pending]
        self._adopted = self.backend.find(jobs)
        for job in jobs[len(self.slots) :]:
            if job.run_dir in self._adopted:
                self.backend.stop(job.run_dir)

    def _fill_slots(self, pending: list[FrozenTrial], total: int) -> None:
        """Continue what an earlier call left, run what is enqueued, then ask for new trials."""
        busy, began = {run.job.slot.index for run in self.runs}, time.monotonic()
        for slot in (slot for slot in self.slots if slot.index not in busy):
            while all(run.job.slot.index != slot.index for run in self.runs):
                if self.runs and time.monotonic() - began > LAUNCH_SECONDS:
                    self._behind = True
                    return  # without a run, the sweep would be at its end
                pending = pending or self._enqueued()
                if pending:
                    self._launch(pending.pop(0), slot)
                elif len(self.study.get_trials(deepcopy=False)) < total:
                    new = add_trial(self.study, self.spec, self.trainer.check_params)
                    self._launch(new, slot)
                else:
                    return

    def _enqueued(self) -> list[FrozenTrial]:
        """Return trials that somebody enqueued since this call began."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def _launch(self, frozen: FrozenTrial, slot: Slot) -> None:
        """Train a trial in a slot: a new one, one to be continued, or one that still trains."""
        if frozen.state == TrialState.WAITING:
            self.study._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        trial = Trial(self.study, frozen._trial_id)
        if trial_attrs(frozen).arm is None:
            try:
                check = self.trainer.check_params
                frozen = complete_enqueued(self.study, self.spec, frozen, check)
            except InputError as error:
                set_trial_attrs(trial, outcome="failed", reason=f"was enqueued, but {error}")
                self.study.tell(trial, state=TrialState.FAIL)
                self._say(f"trial {trial.number} was enqueued, but {error}")
                return
        attrs = trial_attrs(frozen)
        job, now = self._job(frozen, slot), self.clock()
        facts = self.trainer.write(job.run_dir, frozen.params, slot.device, slot.threads)
        run = TrialRun(trial, attrs.arm or "", job, facts, started_at=now, last_event_at=now)
        run.batch_halved = attrs.micro_batch is not None
        if frozen.intermediate_values:
            run.last = max(frozen.intermediate_values.items())
        alive = job.run_dir in self._adopted and self.backend.poll()[job.run_dir].alive
        earlier = [] if alive else self._new_events(run)
        ended = ending_of(last_end(earlier), None) in (Ending.DONE, Ending.DIVERGED)
        if not alive and not ended:
            self.backend.start(job)
        if not ended:
            self.runs.append(run)  # at once: whatever fails from here on, it is stopped
        if attrs.n_params is None:
            threads = facts.config.get("threads", slot.threads)
            set_trial_attrs(trial, n_params=facts.n_params, threads=threads)
        params = frozen.params
        self.callback.on(
            TrialStarted(frozen.number, run.arm, params, self.spec.max_steps, facts.config)
        )
        self._hear(run, earlier)
        if ended:  # while there was no tuner
            self._finish(run, None)
            return
        run.last_event = None  # it was an earlier process's

    # --- following ---------------------------------------------------------------------------

    def _follow(self) -> bool:
        """Hear all trials; return whether a process has ended."""
        ended: list[TrialRun] = []
        status = self.backend.poll()  # before events are read: those of a dead process are complete
        for run in list(self.runs):
            events = self._new_events(run)
            if events:
                run.last_event_at, run.heard = self.clock(), True
                run.trained |= any(event["event"] == "alive" for event in events)
            self._hear(run, events)
            run.looked(self.clock(), status[run.run_dir].waits)
            if status[run.run_dir].waits and run.has_ended:
                self._stop(run, Intent.TRAIN)  # it ended in a process that nobody knew
            if status[run.run_dir].alive:
                self._enforce_limits(run)
            else:
                ended.append(run)
        began = time.monotonic()  # after all are heard: an end takes as long as ten evaluations
        for nth, run in enumerate(ended):
            if nth and time.monotonic() - began > LAUNCH_SECONDS:
                self._behind = True  # the others the next time
                break
            self.runs.remove(run)
            self.backend.forget(run.run_dir)
            run.believe(status[run.run_dir])
            self._finish(run, status[run.run_dir].exit_code)
        return bool(ended)

    def _new_events(self, run: TrialRun) -> list[Event]:
        lines, run.offset = self.backend.read(run.run_dir, run.offset)
        return [event for line in lines if (event := self.trainer.parse(line)) is not None]

    def _hear(self, run: TrialRun, events: list[Event]) -> None:
        for event in events:
            match event["event"]:
                case "evaluation":
                    self._report(run, self.trainer.evaluation(event))
                case "note":
                    self._say(f"trial {run.trial.number} {event['message']}")
                case "done" | "stopped" | "error":
                    run.last_event = event
                case "start":
                    run.last_event = None

    def _report(self, run: TrialRun, evaluation: Evaluation) -> None:
        """Store an evaluation that is new, and prune the trial if it is hopeless."""
        known = run.last is not None and evaluation.step <= run.last_step
        if known or run.intent is Intent.PRUNE:
            return
        value = getattr(evaluation, self.spec.metric)
        run.last = evaluation.step, value
        report_evaluation(self.study, run.trial._trial_id, evaluation, self._capped(value))
        number = run.trial.number
        self.callback.on(Evaluated(number, evaluation, self.metric))
        if may_stop_at(self.spec, evaluation.step) and should_prune(self.study, self.spec, number):
            if is_shadow(self.spec, number):
                set_trial_attrs(run.trial, shadow=evaluation.step)
            else:
                self._stop(run, Intent.PRUNE)

    def _stop(self, run: TrialRun, intent: Intent) -> None:
        """Ask a trial for a checkpoint and an end; the first reason counts."""
        if run.intent is Intent.TRAIN:
            run.intent = intent
        if run.stop_requested_at is None:
            run.stop_requested_at = self.clock()
            self.backend.stop(run.run_dir)

    def _enforce_limits(self, run: TrialRun) -> None:
        now = self.clock()
        if is_overdue(run, self.limits, now):
            self._stop(run, Intent.TIMEOUT)
        if must_be_killed(run, self.limits, now):
            self.backend.kill(run.run_dir)

    # --- finishing ---------------------------------------------------------------------------

    def _finish(self, run: TrialRun, exit_code: int | None) -> None:
        """Finish a trial whose process has ended, start it again, or leave it to the next call."""
        if self.stopping and run.intent is Intent.TRAIN:
            run.intent = Intent.STOP
        handlers: dict[Exit, Callable[[TrialRun, int | None], None]] = {
            Exit.DONE: self._on_done,
            Exit.PRUNED: self._on_pruned,
            Exit.DIVERGED: self._on_diverged,
            Exit.OOM: self._on_oom,
            Exit.TIMEOUT: self._on_timeout,
            Exit.DISK: self._on_disk,
            Exit.STOPPED: self._on_stopped,
            Exit.UNUSABLE: self._on_unusable,
            Exit.CRASHED: self._on_crashed,
        }
        handlers[run.exit(exit_code)](run, exit_code)

    def _on_done(self, run: TrialRun, exit_code: int | None) -> None:
        assert run.last is not None  # TrialRun.ending saw to it
        step, value = run.last
        final = value if math.isfinite(value) else self._capped(value)
        self._tell(run, TrialState.COMPLETE, "complete", final, None)
        if self.spec.max_steps is None:
            self.spec = self.spec.with_max_steps(step)

    def _on_pruned(self, run: TrialRun, exit_code: int | None) -> None:
        step, value = run.last or (0, self.worst)
        kind = self.spec.pruner.kind
        worse = f"{'below' if self.metric.maximize else 'above'} the median"
        why = worse if kind == "median" else f"stopped by {kind} within the trials"
        reason = f"{why} of its arm at step {step}"
        self._tell(run, TrialState.PRUNED, "pruned", value, reason)

    def _on_diverged(self, run: TrialRun, exit_code: int | None) -> None:
        end = run.last_event or {}
        self._tell_worst(run, "diverged", end["step"], end["message"])

    def _on_oom(self, run: TrialRun, exit_code: int | None) -> None:
        """Continue it once with half the micro-batch, which is the same training in less memory."""
        smaller = None if run.batch_halved else self.trainer.halve_memory(run.run_dir)
        if smaller is None:
            end = run.last_event or {}
            self._tell_worst(run, "oom", end["step"], end["message"])
            return
        set_trial_attrs(run.trial, micro_batch=smaller)
        run.batch_halved = True
        self._say(
            f"trial {run.trial.number} ran out of memory; it goes on with batch_size {smaller} and "
            f"twice the gradient accumulation"
        )
        self._continue(run)

    def _on_timeout(self, run: TrialRun, exit_code: int | None) -> None:
        self._tell_worst(run, "timeout", 0, run.timeout_reason or "")

    def _on_disk(self, run: TrialRun, exit_code: int | None) -> None:
        """Stop the sweep; the next call continues the trial."""
        self.disk = run.disk_error()
        self._continue(run)

    def _on_stopped(self, run: TrialRun, exit_code: int | None) -> None:
        """Continue it, unless others end it again and again before it gets anywhere."""
        if self.stopping or run.count_in_vain(exit_code) < MAX_IN_VAIN:
            self._continue(run)
        else:
            self._tell(run, TrialState.FAIL, "failed", None, run.in_vain_reason())

    def _on_unusable(self, run: TrialRun, exit_code: int | None) -> None:
        self._tell(run, TrialState.FAIL, "failed", None, run.exit_reason(exit_code))

    def _on_crashed(self, run: TrialRun, exit_code: int | None) -> None:
        """Start it again: a crash is the machine's fault at first, the trial's at the same step."""
        reason = run.exit_reason(exit_code)
        run.crashes.append(run.last_step)
        if run.crashes.count(run.crashes[-1]) < MAX_CRASHES:
            self._say(f"trial {run.trial.number} {reason}; it is started again")
            self._continue(run)
        elif run.hang_reason:
            self._tell_worst(run, "timeout", 0, f"{reason}, {MAX_CRASHES} times")
        else:
            self._tell(run, TrialState.FAIL, "failed", None, reason)

    def _continue(self, run: TrialRun) -> None:
        """Continue a trial in its slot; when the sweep is stopping, the next call does."""
        if self.stopping:
            self.study._storage.set_trial_state_values(run.trial._trial_id, TrialState.WAITING)
            return
        run.restarted(self.clock())
        self.backend.start(run.job)
        self.runs.append(run)

    def _tell(
        self,
        run: TrialRun,
        state: TrialState,
        outcome: str,
        value: float | None,
        reason: str | None,
    ) -> None:
        """Finish a trial in the study: once, with its outcome and its reason."""
        trial = run.trial
        self.trainer.tidy(run.run_dir)
        set_trial_attrs(trial, outcome=outcome)  # first: a finished trial takes no attributes
        if reason:
            set_trial_attrs(trial, reason=reason)
        if outcome == "failed":
            self.failures.append(f"trial {trial.number} {reason}")
        else:
            self.failures.clear()
        self.callback.on(TrialEnding(trial, run.run_dir, outcome, value))
        complete = state == TrialState.COMPLETE
        self.study.tell(trial, value if complete else None, state=state)
        self.callback.on(TrialFinished(trial.number, run.arm, outcome, value, reason))

    def _tell_worst(self, run: TrialRun, outcome: str, step: int, reason: str) -> None:
        """Finish it as PRUNED with the worst perplexity: samplers learn from PRUNED only.

        Where no worst is known, as of a program, they rank it last by its outcome.
        """
        known = math.isfinite(self.worst)
        if known:
            run.trial.report(self.worst, max(step, run.last_step + 1))
        self._tell(run, TrialState.PRUNED, outcome, self.worst if known else None, reason)

    def _capped(self, value: float) -> float:
        """Cap a perplexity, infinity too, at that of guessing uniformly, which is V."""
        return min(value, self.worst)

    def _give_up_if_everything_fails(self) -> None:
        """A missing library fails every trial: better stop than use them all up."""
        if len(self.failures) >= MAX_FAILURES:
            raise TrialsFailedError(
                f"trials must not fail one after another, but the last {MAX_FAILURES} did: "
                f"{self.failures[-1]} (see log.txt in {self.folder}); "
                f"fix it and run the same command again."
            )

    # --- signals and figures -----------------------------------------------------------------

    def _pass_on_signals(self) -> None:
        """Stop trials at a checkpoint when the sweep has to stop; at a second signal, at once."""
        wanted = max(len(self.signals), int(self.stopping))
        for run in self.runs:
            if run.signals_sent < 2 <= wanted:
                self.backend.kill(run.run_dir)
            elif run.signals_sent < 1 <= wanted:
                self._stop(run, Intent.STOP)
            run.signals_sent = wanted
        if self.stopping and not self._stop_announced:
            self._stop_announced = True
            why = "the disk is full; " if self.disk else "" if self.signals else "time is up; "
            self._say(f"{why}stopping at a checkpoint; once more to stop at once")

    def _send_counts(self, total: int) -> None:
        finished = sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False))
        self.callback.on(Counts(finished, total, results.best_by_arm(self.study)))

    def _say(self, text: str) -> None:
        self.callback.on(Message(text))
