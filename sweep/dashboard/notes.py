"""Notes and figures of a study for Optuna Dashboard, written by the tuner alone.

They are kept in the study's system attributes, so that the dashboard's own process only ever reads.
Add a figure to `dashboard_figures`.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from sweep.analysis.results import METRICS, ranked
from sweep.analysis.trial_stories import escaped, quoted
from sweep.storage.schema import study_attrs, trial_attrs
from sweep.storage.tables import record_notes, record_overview
from sweep.study.format import number, relative, trials_line
from sweep.study.metric import PERPLEXITY, Metric
from sweep.tuner.callback import Callback, Counts, Evaluated, Opened, SweepEvent, TrialEnding

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    import plotly.graph_objects as go
    from optuna.storages import RDBStorage

    from gpt.events import Evaluation
    from sweep.analysis.study_reader import StudyReader

MIN_PAUSE = 10.0  # seconds between two updates of the figures
MAX_SHARE = 0.02  # of the tuner's time that updates may take: a long study is updated less often
MAX_TRIALS = 150  # in the dashboard's figures, which travel with every poll of it: the newest
MAX_POINTS = 12  # of a trial's curve there
MAX_RUNS = 200  # confirm runs there: the first seeds, which every arm has
SLOW_IMPORTS = ("optuna_dashboard", "gpt.sample", "sweep.report.facts", "sweep.visualization")
PROMPT = "Once upon a time"
STORY_TOKENS = 80  # of the story in a trial's note


class DashboardNotes(Callback):
    """Callback that keeps the study's note and figures up to date and adds a note to each trial."""

    def __init__(
        self,
        say: Callable[[str], None] = lambda message: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self._next = 0.0  # the clock from when an update is due
        self._stale = False
        self._latest: dict[int, Evaluation] = {}  # of the trials that train
        self._notes: list[tuple[optuna.Trial, Callable[[], str]]] = []  # not written yet
        self._imports = Thread(target=_import_ahead)  # so that a signal is obeyed meanwhile
        self._metric = PERPLEXITY
        self._study: optuna.Study | None = None
        self._storage: RDBStorage | None = None

    def __exit__(self, *error: object) -> None:
        self._write_notes()
        if self._stale:
            self._update()

    def on(self, event: SweepEvent) -> None:
        """Note what changed; write notes and figures at counts, which may take their time."""
        match event:
            case Opened(study, storage, metric):  # the first update waits until trials train
                self._study, self._storage, self._metric = study, storage, metric
                self._next = self._clock() + MIN_PAUSE
            case Evaluated(trial, evaluation):
                self._latest[trial] = evaluation
                if self._imports.ident is None:  # import what notes need, while trials train
                    self._imports.start()
            case TrialEnding():
                self._prepare_note(event)
            case Counts(finished, total):
                self._write_notes()
                self._stale = True
                if finished >= total or self._clock() >= self._next:
                    self._update()

    def _prepare_note(self, event: TrialEnding) -> None:
        self._await_imports()
        if self._study is None or self._storage is None:
            return
        self._stale = True
        trial, run_dir = event.trial, event.run_dir
        latest = self._latest.pop(trial.number, None)
        with self._never_in_the_way(f"trial {trial.number}"):
            ours = not (study_attrs(self._study).spec or {}).get("trainer")
            story = _story(run_dir) if ours and event.outcome == "complete" else None
            note = partial(
                trial_note,
                trial,
                run_dir,
                event.outcome,
                event.perplexity,
                latest,
                story,
                self._metric,
            )
            self._notes.append((trial, note))

    def _write_notes(self) -> None:
        """Write the notes that wait. They belong to the study, so a finished trial can get one."""
        written: dict[int, str] = {}
        numbers: list[int] = []
        while self._notes:
            trial, note = self._notes.pop(0)
            with self._never_in_the_way(f"trial {trial.number}"):
                written[trial._trial_id] = note()
                numbers.append(trial.number)
        if written and self._study is not None and self._storage is not None:
            with self._never_in_the_way(trials_line(numbers)):
                record_notes(self._storage, self._study._study_id, written)

    def _update(self) -> None:
        if self._study is None or self._storage is None:
            return
        self._await_imports()
        started = self._clock()
        with self._never_in_the_way("the study"):
            publish(self._study, self._storage)
        now = self._clock()
        self._next = now + max(MIN_PAUSE, (now - started) / MAX_SHARE)
        self._stale = False

    def _await_imports(self) -> None:
        """Wait for the imports: a second thread that imports the same may see half of it."""
        if self._imports.ident is not None:
            self._imports.join()

    @contextmanager
    def _never_in_the_way(self, what: str) -> Iterator[None]:
        """Report an error and go on: a damaged checkpoint may cost a note, never the sweep."""
        try:
            yield
        except Exception as error:  # whatever it is: a broken database stops the tuner itself
            self._say(f"the dashboard lacks news of {what}: {type(error).__name__}: {error}")


def _import_ahead() -> None:
    for name in SLOW_IMPORTS:
        import_module(name)


def publish(study: "optuna.Study", storage: "RDBStorage") -> None:
    """Write the study's note and figures as they are now."""
    from sweep.analysis.study_reader import read_study

    reader = read_study(storage, study)
    figures = {name: figure.to_json() for name, figure in dashboard_figures(reader).items()}
    record_overview(storage, study._study_id, study_note(reader), figures)


def dashboard_figures(reader: "StudyReader") -> "dict[str, go.Figure]":
    """Draw the dashboard's figures by their fixed ids: basic traces, together under 200 kB."""
    from sweep import visualization as plots
    from sweep.analysis.tuning_curve import tuning_curve_table

    arms, floor = reader.arms, reader.data.get("floor_perplexity")
    metric = reader.metric
    trials = _few(reader.trials, metric)
    curves = _thinned(reader.evaluations, trials)
    found = {
        "curves-by-arm": plots.plot_curves(curves, trials, arms, floor, metric),
        "tuning-curve-by-arm": plots.plot_tuning_curve(
            tuning_curve_table(
                reader.trials, arms, reader.spec["sampler"]["kind"], reader.lowest, metric
            ),
            arms,
            floor,
            metric,
        ),
    }
    if "learning_rate" in reader.parameters:
        space = reader.parameters["learning_rate"]
        found["learning-rate-by-arm"] = plots.plot_slice(
            trials, "learning_rate", arms, space, metric
        )
    if len(reader.confirm_runs):
        found["confirm-runs"] = plots.plot_confirm_runs(
            _few_seeds(reader), arms, reader.lowest, reader.verdict, metric
        )
    for name, figure in found.items():
        title = name.replace("-", " ")
        heading = {"text": title, "x": 0.01, "y": 0.98, "yanchor": "top"}  # above the legend
        figure.update_layout(title=heading, margin_t=110, height=430)
    return found


def _few(trials: "pd.DataFrame", metric: "Metric") -> "pd.DataFrame":
    """Select the newest trials, and the best of each arm however old."""
    complete = ranked(trials[trials["outcome"] == "complete"], metric)
    best = complete.drop_duplicates("arm")["number"]
    newest = trials["number"] >= len(trials) - MAX_TRIALS
    return trials[newest | trials["number"].isin(best)].reset_index(drop=True)


def _few_seeds(reader: "StudyReader") -> "pd.DataFrame":
    """Select the confirm runs of as many seeds as there is room for, the same of every arm."""
    runs = reader.confirm_runs
    first = sorted(runs["seed"].unique())[: MAX_RUNS // len(reader.arms)]
    return runs[runs["seed"].isin(first)]


def _thinned(evaluations: "pd.DataFrame", trials: "pd.DataFrame") -> "pd.DataFrame":
    """Select about MAX_POINTS evaluations of each of these trials, always with the last."""
    kept = evaluations[evaluations["trial_number"].isin(trials["number"])]
    groups = kept.groupby("trial_number")["step"]
    from_last = groups.cumcount(ascending=False)
    every = -(-groups.transform("size") // MAX_POINTS)
    return kept[from_last % every == 0]


def study_note(reader: "StudyReader") -> str:
    """Write the study's note in Markdown: question, answer, counts, the best of each arm."""
    from sweep.analysis.study_reader import answer, best_of_arms, heading

    found, data = answer(reader), reader.data
    title, open_question = heading(reader)
    lines = [
        f"## {escaped(title)}",
        "",
        *([escaped(open_question), ""] if open_question else []),
        f"**{escaped(found.text)}**",
        "",
        escaped(found.more),
        "",
    ]
    if found.confirm:
        lines += [f"**Not confirmed yet.** {found.caveat}", "", f"    {found.confirm}", ""]
    if data.get("notice"):
        lines += [f"> {data['notice']}", ""]
    counts = reader.trials["outcome"].value_counts().items()
    finished, total = reader.progress
    counted = ", ".join(f"{count} {outcome}" for outcome, count in counts)
    lines += [f"{finished} of {total} trials finished: {counted or 'none yet'}.", ""]
    lines += [f"| arm | {reader.metric.name} | trial | configuration |", "|---|---|---|---|"]
    for best in best_of_arms(reader):
        chosen = ", ".join(f"{name} {value}" for name, value in best.settings)
        value = reader.metric.shown(best.perplexity)
        lines.append(f"| {escaped(best.arm)} | {value} | {best.number} | {escaped(chosen)} |")
    how_to_read = HOW_TO_READ.replace("perplexity", reader.metric.name)
    return "\n".join([*lines, "", how_to_read]) + "\n"


HOW_TO_READ = (
    "**Reading the dashboard's own plots.** They draw perplexity as it is, so a few bad trials, "
    "such as a baseline of 300 beside a best of 40, press all others together: tick *Log y scale* "
    "or drag over the lower part to enlarge it.\n\n"
    "**Why its importances differ from the report's.** *Hyperparameter importance* here answers "
    "what sets the best tenth of all trials apart (PED-ANOVA), over all arms at once. The report "
    "answers that within each arm, and beside it what matters over the whole searched range "
    "(fANOVA of log perplexity). A parameter that ruins most runs need not separate the good ones, "
    "nor the other way round: 0.8 here and 9 % in the report may both be right."
)


def trial_note(
    trial: "optuna.Trial",
    run_dir: Path,
    outcome: str,
    measured: float | None,
    latest: "Evaluation | None",
    story: str | None,
    metric: Metric = PERPLEXITY,
) -> str:
    """Write a trial's note in Markdown: configuration, how it ended, metrics, a story."""
    attrs = trial_attrs(trial)
    arm = escaped(attrs.arm or "")
    lines = [f"**{arm}**, {outcome}: {metric.name} {metric.shown(measured)}", ""]
    if attrs.reason:
        lines += [escaped(attrs.reason), ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {escaped(number(value))} |" for name, value in trial.params.items()]
    lines += [f"| origin | {attrs.origin or '-'} |"]
    lines += [f"| weights | {attrs.n_params:,} |"] if attrs.n_params else []
    lines += [f"| run directory | `{relative(run_dir)}` |", ""]
    values = asdict(latest) if latest else {}
    names = METRICS if metric == PERPLEXITY else METRICS[1:]  # the first is in the headline
    known = {name: values[name] for name in names if _is_known(values.get(name))}
    if known:
        lines += ["At its last evaluation:", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in known.items()]
        lines += [""]
    if story:
        lines += quoted(story)
    return "\n".join(lines)


def _is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _story(run_dir: Path) -> str | None:
    """Sample a short story from the trial's model; None if its checkpoint cannot be used."""
    import torch

    from gpt.errors import SquenSweepError
    from gpt.sample import sample

    torch.set_num_threads(1)  # the cores belong to the trials
    try:
        return sample(run_dir, PROMPT, STORY_TOKENS)[0]
    except (SquenSweepError, OSError):
        return None
