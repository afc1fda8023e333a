"""Studies of thousands of trials: what is shown of them, read of them, and heard meanwhile."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna import create_study
from optuna.trial import Trial, TrialState, create_trial
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._note import get_note_from_system_attrs
from stand_ins import StandIns, opened, write_event
from stored_studies import StoredStudy, add_at_once, evaluation

from sweep.analysis import importance
from sweep.analysis.importance import OF_THE_BEST, OVER_THE_RANGE, importances_table
from sweep.analysis.study_reader import MOST_SHOWN, StudyReader, read_study, shown, shown_of
from sweep.backends.base import Status
from sweep.report.status_table import MOST_ROWS, study_status
from sweep.report.tables import all_table
from sweep.search.known_trials import in_memory
from sweep.storage.reader import load_study, open_snapshot
from sweep.storage.schema import attrs_of_all, study_attrs
from sweep.storage.tables import evaluations, record_notes, record_overview
from sweep.tuner.callback import Callback, Evaluated, SweepEvent, TrialEnding, TrialFinished
from sweep.tuner.options import RunOptions
from sweep.tuner.tuner import LAUNCH_SECONDS, Tuner
from sweep.visualization.figures import figures

MANY, SLOTS = 1200, 150


def fill(stored: StoredStudy, count: int) -> None:
    """Trials of two evaluations; the first is a baseline, one that was stopped early, one runs."""
    trials = []
    for number in range(count):
        arm = stored.spec.arms[number % 2]
        params = {"learning_rate": 10 ** -random.Random(number).uniform(2, 4), "n_layer": 2}
        params |= {"loss": arm} | ({"square_weight": 1.0} if arm == "squentropy" else {})
        value = 50.0 + number * 37 % 1009 / 10
        state = {1: TrialState.PRUNED, 2: TrialState.RUNNING}.get(number, TrialState.COMPLETE)
        attrs = {"arm": arm, "origin": "sampler" if number else "baseline:usual", "n_params": 1000}
        outcome = {1: "pruned", 2: None}.get(number, "complete")
        started = datetime(2026, 1, 1) + number // SLOTS * timedelta(minutes=5)
        trials.append(
            create_trial(
                state=state,
                value=value if state == TrialState.COMPLETE else None,
                params=params,
                distributions=stored.spec.distributions(params),
                user_attrs=attrs | ({"outcome": outcome} if outcome else {}),
                intermediate_values={100: value + 9, 200: value},
            )
        )
        trials[-1].datetime_start = started
        trials[-1].datetime_complete = started + timedelta(minutes=5) if outcome else None
    ids = add_at_once(stored.storage, stored.study._study_id, 0, trials)
    rows = [
        {"trial_id": trial_id, **asdict(evaluation(*pair))}
        for trial_id, trial in zip(ids, trials, strict=True)
        for pair in trial.intermediate_values.items()
    ]
    with stored.storage.engine.begin() as connection:
        connection.execute(evaluations.insert(), rows)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> StudyReader:
    stored = StoredStudy(tmp_path_factory.mktemp("many"))
    fill(stored, MANY)
    study = load_study(open_snapshot(str(stored.path)), "tiny")
    return read_study(stored.storage, study)


@contextmanager
def counted(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements that a database gets."""
    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        found.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


# Shown


def test_a_page_shows_a_thousand_trials_with_the_baseline_and_the_best_of_each_arm(reader):
    few = shown(reader)
    numbers = set(few.trials["number"])
    assert len(numbers) == MOST_SHOWN < MANY
    assert 0 in numbers
    for arm in reader.arms:
        best = reader.complete[reader.complete["arm"] == arm].head(MOST_SHOWN // 8)
        assert set(best["number"]) <= numbers
    assert set(few.evaluations["trial_number"]) == numbers
    assert list(shown(reader).trials["number"]) == list(few.trials["number"])  # each time the same


def test_a_page_that_leaves_trials_out_says_so_and_others_do_not(reader):
    assert shown_of(reader).startswith("Shown one by one are 1,000 of 1,200 trials: ")
    thousand = replace(reader, trials=reader.trials.head(MOST_SHOWN))
    assert shown(thousand) is thousand
    assert shown_of(thousand) == ""


def test_rows_and_marks_are_of_the_trials_that_are_shown(reader):
    numbers = set(shown(reader).trials["number"])
    assert set(all_table(reader).numbers) == numbers
    drawn = {one.name: one.draw() for one in figures(reader) if one.name in ("curves", "speed")}
    for figure in drawn.values():
        of_trials = {n for trace in figure.data for n in trace.customdata or () if n is not None}
        assert of_trials == numbers


def test_a_figure_of_all_slots_is_of_all_trials(reader):
    time_figure = next(one for one in figures(reader) if one.name == "time").draw()
    assert time_figure.layout.meta["note"].startswith("The first 100 of ")
    assert len(time_figure.data[0].y) == 101
    assert sum(bar.x[-1] for bar in time_figure.data) == pytest.approx(1.0)


def test_status_lists_the_newest_trials_and_those_that_run(reader):
    found = study_status(reader.study, 200)
    said = next(str(part) for part in found if "the newest" in str(part))
    assert said == f"{MOST_ROWS:,} of {MANY:,} trials, the newest; --json has all"
    table = next(part for part in found if hasattr(part, "row_count"))
    assert table.row_count == MOST_ROWS
    first = [str(cell) for cell in table.columns[0].cells]
    assert first[:2] == ["2", str(MANY - MOST_ROWS + 1)]  # trial 2 still runs


def test_fanova_sees_a_sample_of_many_trials_and_the_other_method_all(reader, monkeypatch):
    def by_question() -> dict[str, dict[str, float]]:
        table = importances_table(reader.study, ["squentropy"])
        return {
            question: dict(zip(rows["parameter"], rows["importance"], strict=True))
            for question, rows in table.groupby("question")
        }

    monkeypatch.setattr(importance, "FANOVA_TRIALS", 100)
    monkeypatch.setattr(importance, "SAMPLED", 40)
    first = by_question()
    assert by_question() == first
    monkeypatch.setattr(importance, "SAMPLED", 60)
    other = by_question()
    assert other[OF_THE_BEST] == first[OF_THE_BEST]
    assert set(other[OVER_THE_RANGE]) == set(first[OVER_THE_RANGE])


# Read and written


def test_a_study_is_read_in_as_many_statements_whatever_its_trials(tmp_path: Path):
    counts = []
    for number in (5, 60):
        folder = tmp_path / str(number)
        folder.mkdir()
        stored = StoredStudy(folder)
        fill(stored, number)
        with counted(stored.storage.engine) as statements:
            read_study(stored.storage, load_study(open_snapshot(str(stored.path)), "tiny"))
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_notes_are_written_at_once_and_a_users_own_stays(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    fill(stored, 6)
    trials = [Trial(stored.study, one._trial_id) for one in stored.study.get_trials()]
    save_note(trials[1], "mine")
    long = "x" * 5000  # of which the dashboard makes several attributes
    notes = {trial._trial_id: f"{long} {trial.number}" for trial in trials}
    with counted(stored.storage.engine) as statements:
        record_notes(stored.storage, stored.study._study_id, notes)
    assert sum(statement.startswith("SELECT") for statement in statements) == 1
    found = [get_note(trial) for trial in trials]
    assert found[1] == "mine"
    assert [note for note in found if note != "mine"] == [f"{long} {n}" for n in (0, 2, 3, 4, 5)]


def test_the_overview_replaces_the_one_before_and_reads_no_trials_notes(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    fill(stored, 3)
    study, trial = stored.study, Trial(stored.study, stored.study.get_trials()[0]._trial_id)
    save_note(trial, "of a trial")
    save_note(study, "from before")
    long = "x" * 5000
    for note, drawn in ((long, {"a": long, "b_": "{}"}), ("short", {"a": "{}"})):
        with counted(stored.storage.engine) as statements:
            record_overview(stored.storage, study._study_id, note, drawn)
        assert sum(statement.startswith("SELECT") for statement in statements) == 2
        found = stored.storage.get_study_system_attrs(study._study_id)
        assert get_note(study) == note
        assert get_plotly_graph_objects(found) == {"b_": "{}", **drawn}
    assert get_note_from_system_attrs(found, None)["version"] == 3
    assert get_note(trial) == "of a trial"


def test_attributes_of_all_studies_are_as_optuna_has_them(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    create_study(storage=stored.storage, study_name="of another program")
    found = attrs_of_all(in_memory(stored.study, stored.storage)._storage)
    expected = {
        one.study_name: (one._study_id, study_attrs(one))
        for one in stored.storage.get_all_studies()
    }
    assert found == expected
    assert list(found) == ["tiny", "of another program"]
    assert found["tiny"][1].spec is not None


def test_nothing_is_written_to_what_was_deleted_meanwhile(tmp_path: Path):
    """SQLite would give it to the next study and the next trial, which get the same ids."""
    stored = StoredStudy(tmp_path)
    number = stored.study._study_id
    study = in_memory(stored.study, stored.storage)
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"arm": "all"}))
    trial = Trial(study, study.get_trials()[0]._trial_id)
    stored.storage.delete_study(number)
    with pytest.raises(KeyError):
        trial.set_user_attr("outcome", "complete")
    with pytest.raises(KeyError):
        record_notes(stored.storage, number, {trial._trial_id: "text"})
    with pytest.raises(KeyError):
        record_overview(stored.storage, number, "text", {})


# Heard


class Scripted(StandIns):
    """Trials that end all at once, but for one, which is evaluated at every poll."""

    def __init__(self, slots: int, max_steps: int) -> None:
        super().__init__(slots)
        self._max_steps, self._step = max_steps, 0

    def poll(self) -> Mapping[Path, Status]:
        if self._step or len(self.alive) == self.slots:
            *others, last = sorted(self.alive, key=lambda run_dir: int(run_dir.name))
            if not self._step:
                for run_dir in others:
                    self._evaluate(run_dir, 10, 50.0)
                    self._end(run_dir)
            self._step += 10
            if self.alive[last]:
                self._evaluate(last, self._step, 60.0)
                if self._step == self._max_steps:
                    self._end(last)
        return super().poll()

    def _evaluate(self, run_dir: Path, step: int, perplexity: float) -> None:
        write_event(run_dir, {"event": "evaluation", **asdict(evaluation(step, perplexity))})

    def _end(self, run_dir: Path) -> None:
        write_event(run_dir, {"event": "done", "step": self._step})
        self.alive[run_dir] = False

    def forget(self, run_dir: Path) -> None:
        if len(self.alive) > 1:
            super().forget(run_dir)


class SlowEnds(Callback):
    """Ends that take as long as on a slow disk, and the order of what happens."""

    def __init__(self) -> None:
        self.happened: list[str] = []

    def on(self, event: SweepEvent) -> None:
        match event:
            case TrialEnding():
                time.sleep(0.75 * LAUNCH_SECONDS)
            case TrialFinished():
                self.happened.append("end")
            case Evaluated(trial, _) if trial == 8:
                self.happened.append("evaluation")


def test_trials_are_heard_after_every_second_of_many_slow_ends(tmp_path: Path):
    text = 'name = "ends"\ntrain = { max_steps = 200, eval_interval = 10, dtype = "float32" }\n'
    text += 'pruner.kind = "none"\n[search.learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n'
    stored = StoredStudy(tmp_path, text)
    events = SlowEnds()
    Tuner(opened(stored, Scripted(9, 200)), RunOptions(), events).run(9)
    text = " ".join(events.happened)
    assert text.count("end") == 9
    assert "end end end" not in text
