"""What Optuna Dashboard shows of a study: notes, figures, artifacts. Written by the driver alone.

A listener that the driver tells what happens. It writes what the dashboard reads from the study's
system attributes, so that the dashboard's process only ever reads. Add a figure to `figures`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from sweep.format import perplexity
from sweep.tuner.callback import Silent

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    import plotly.graph_objects as go
    from optuna.storages import RDBStorage

    from gpt.events import Evaluation
    from sweep.analysis.study_reader import Stored

MIN_PAUSE = 10.0  # seconds between two updates of the figures
MAX_SHARE = 0.02  # of the driver's time that updates may take: a long study is updated less often
MAX_TRIALS = 150  # in the dashboard's figures, which travel with every look it takes: the newest
MAX_POINTS = 12  # of a trial's curve there
MAX_RUNS = 200  # confirm runs there: the first seeds, which every arm has
SLOW_IMPORTS = ("optuna_dashboard", "gpt.sample", "sweep.report.facts", "sweep.visualization")
PROMPT = "Once upon a time"
STORY_TOKENS = 80  # of the story in a trial's note


class DashboardFeed(Silent):
    """Keeps the study's note and figures up to date, and adds a note and files to each trial."""

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
        self._study: optuna.Study | None = None
        self._storage: RDBStorage | None = None

    def __exit__(self, *error: object) -> None:
        self._write_notes()
        if self._stale:
            self._update()

    def opened(self, study: "optuna.Study", storage: "RDBStorage") -> None:
        """Notes where to write: first when trials train already, since plotly takes its time."""
        self._study, self._storage = study, storage
        self._next = self._clock() + MIN_PAUSE

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Notes the yardsticks; the first imports what ends of trials need, while they train."""
        self._latest[number] = evaluation
        if self._imports.ident is None:
            self._imports.start()

    def trial_ending(self, trial: "optuna.Trial", outcome: str, perplexity: float | None) -> None:
        """Adds the trial's files, while Optuna still takes them; its note can wait for `counts`."""
        self._await_imports()
        from sweep.dashboard.artifacts import attach

        if self._storage is None:
            return
        self._stale = True
        run_dir = Path(trial.user_attrs["run_dir"])
        latest = self._latest.pop(trial.number, None)
        with self._never_in_the_way(f"trial {trial.number}"):
            story = _story(run_dir) if outcome == "complete" else None
            note = partial(trial_note, trial, outcome, perplexity, latest, story)
            self._notes.append((trial, note))
            attach(self._storage, trial, run_dir, [PROMPT], [story] if story else [])

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Writes notes of trials; updates the study's and the figures, unless just now done."""
        self._write_notes()
        self._stale = True
        if finished >= total or self._clock() >= self._next:
            self._update()

    def _write_notes(self) -> None:
        """The dashboard keeps them with the study, so a trial that was told can get one."""
        while self._notes:
            from optuna_dashboard import save_note

            trial, note = self._notes.pop(0)
            with self._never_in_the_way(f"trial {trial.number}"):
                save_note(trial, note())

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
        """Two threads that import the same may see half of it."""
        if self._imports.ident is not None:
            self._imports.join()

    @contextmanager
    def _never_in_the_way(self, what: str) -> Iterator[None]:
        """A full disk or a damaged checkpoint may cost the dashboard a note, never the sweep."""
        try:
            yield
        except Exception as error:  # whatever it is: a broken database stops the driver itself
            self._say(f"the dashboard lacks news of {what}: {type(error).__name__}: {error}")


def _import_ahead() -> None:
    for name in SLOW_IMPORTS:
        import_module(name)


def publish(study: "optuna.Study", storage: "RDBStorage") -> None:
    """Write the study's note and figures as they are now."""
    from optuna_dashboard import save_note, save_plotly_graph_object

    from sweep.analysis.study_reader import read

    stored = read(storage, study)
    save_note(study, study_note(stored))
    for name, figure in figures(stored).items():
        save_plotly_graph_object(study, figure, graph_object_id=name)


def figures(stored: "Stored") -> "dict[str, go.Figure]":
    """The dashboard's figures by their fixed ids: basic traces, together under 200 kB."""
    from sweep import visualization as plots
    from sweep.analysis.tuning_curve import expected_best_table

    arms, floor = stored.arms, stored.data.get("floor_perplexity")
    trials = _few(stored.trials)
    curves = _thinned(stored.evaluations, trials)
    found = {
        "curves-by-arm": plots.plot_curves(curves, trials, arms, floor),
        "best-so-far-by-arm": plots.plot_best_so_far(stored.trials, arms, floor),
        "expected-best-by-arm": plots.plot_expected_best(
            expected_best_table(stored.trials, arms, stored.spec["sampler"]["kind"], floor),
            arms,
            floor,
        ),
    }
    if "learning_rate" in stored.parameters:
        space = stored.parameters["learning_rate"]
        found["learning-rate-by-arm"] = plots.plot_slice(trials, "learning_rate", arms, space)
    if len(stored.confirm_runs):
        found["confirm-runs"] = plots.plot_confirm_runs(_few_seeds(stored), arms)
    for name, figure in found.items():
        title = name.replace("-", " ")
        heading = {"text": title, "x": 0.01, "y": 0.98, "yanchor": "top"}  # above the legend
        figure.update_layout(title=heading, margin_t=110, height=430)
    return found


def _few(trials: "pd.DataFrame") -> "pd.DataFrame":
    """The newest trials, and the best of each arm however old."""
    complete = trials[trials["outcome"] == "complete"].sort_values("perplexity")
    best = complete.drop_duplicates("arm")["number"]
    newest = trials["number"] >= len(trials) - MAX_TRIALS
    return trials[newest | trials["number"].isin(best)].reset_index(drop=True)


def _few_seeds(stored: "Stored") -> "pd.DataFrame":
    """The confirm runs of as many seeds as there is room for, of every arm the same."""
    runs = stored.confirm_runs
    first = sorted(runs["seed"].unique())[: MAX_RUNS // len(stored.arms)]
    return runs[runs["seed"].isin(first)]


def _thinned(evaluations: "pd.DataFrame", trials: "pd.DataFrame") -> "pd.DataFrame":
    """At most about MAX_POINTS evaluations of each of these trials, the last always among them."""
    kept = evaluations[evaluations["trial_number"].isin(trials["number"])]
    groups = kept.groupby("trial_number")["step"]
    from_last = groups.cumcount(ascending=False)
    every = -(-groups.transform("size") // MAX_POINTS)
    return kept[from_last % every == 0]


def study_note(stored: "Stored") -> str:
    """Question, answer, counts and the best configuration per arm, in Markdown."""
    from sweep.analysis.study_reader import answer, best_of_arms

    found, spec, data = answer(stored), stored.spec, stored.data
    lines = [
        f"## {_escaped(spec['question'] or stored.study.study_name)}",
        "",
        f"**{_escaped(found.text)}**",
        "",
        _escaped(found.more),
        "",
    ]
    if found.confirm:
        lines += [f"**Not confirmed yet.** {found.caveat}", "", f"    {found.confirm}", ""]
    if data.get("notice"):
        lines += [f"> {data['notice']}", ""]
    counts = stored.trials["outcome"].value_counts().items()
    finished, total = stored.progress
    counted = ", ".join(f"{count} {outcome}" for outcome, count in counts)
    lines += [f"{finished} of {total} trials finished: {counted or 'none yet'}.", ""]
    lines += ["| arm | perplexity | trial | configuration |", "|---|---|---|---|"]
    for best in best_of_arms(stored):
        chosen = ", ".join(f"{name} {value}" for name, value in best.settings)
        value = perplexity(best.perplexity)
        lines.append(f"| {_escaped(best.arm)} | {value} | {best.number} | {_escaped(chosen)} |")
    return "\n".join([*lines, *_compare_link(stored)]) + "\n"


def _compare_link(stored: "Stored") -> list[str]:
    """To the page that lays the arms side by side, where `squen-sweep dashboard` serves it."""
    from sweep.dashboard.arm_views import view_id

    if len(stored.arms) < 2:
        return []
    places = range(1, len(stored.arms) + 1)
    ids = ",".join(str(view_id(stored.study._study_id, place)) for place in places)
    return ["", f"[The arms side by side](/dashboard/compare-studies?ids={ids})"]


def trial_note(
    trial: "optuna.Trial",
    outcome: str,
    measured: float | None,
    latest: "Evaluation | None",
    story: str | None,
) -> str:
    """A trial's configuration, how it ended, its yardsticks and a story, in Markdown."""
    from sweep.analysis.results import YARDSTICKS
    from sweep.format import number

    attributes = trial.user_attrs
    lines = [f"**{_escaped(attributes['arm'])}**, {outcome}: perplexity {perplexity(measured)}", ""]
    if reason := attributes.get("reason"):
        lines += [_escaped(reason), ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {_escaped(number(value))} |" for name, value in trial.params.items()]
    lines += [f"| origin | {attributes.get('origin', '-')} |"]
    lines += [f"| weights | {attributes.get('n_params', 0):,} |"]
    lines += [f"| run directory | `{attributes.get('run_dir', '-')}` |", ""]
    values = asdict(latest) if latest else {}
    known = {name: values[name] for name in YARDSTICKS if values.get(name) is not None}
    if known:
        lines += ["At its last evaluation:", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in known.items()]
        lines += [""]
    if story:
        lines += ["A story:", "", *(f"> {_escaped(line)}" for line in story.splitlines()), ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text in which Markdown finds no markup and no column of a table."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)


def _story(run_dir: Path) -> str | None:
    """A short story of the trial's model; None where its checkpoint tells none."""
    import torch

    from gpt.errors import InputError
    from gpt.sample import sample

    torch.set_num_threads(1)  # the cores belong to the trials
    try:
        return sample(run_dir, PROMPT, STORY_TOKENS)[0]
    except (InputError, OSError):
        return None
