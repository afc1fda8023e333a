import json
from datetime import UTC, datetime

from stored_studies import StoredStudy

from sweep import visualization as plots
from sweep.analysis.sessions import sessions_table

ARMS = ["cross_entropy", "squentropy"]


def write_events(folder, *times: tuple[str, float], device: str = "cuda:1") -> str:
    folder.mkdir()
    lines = [json.dumps({"event": event, "time": time}) for event, time in times]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config.json").write_text(json.dumps({"device": device}))
    return str(folder)


def stored_sessions(tmp_path) -> StoredStudy:
    """Trial 0 was continued; trial 1 ran beside its first session; the files of 2 are gone."""
    stored = StoredStudy(tmp_path)
    first = ("start", 0.0), ("evaluation", 5.0), ("stopped", 10.0), ("start", 20.0), ("done", 30.0)
    stored.add("cross_entropy", [50.0], run_dir=write_events(tmp_path / "0", *first))
    other = ("start", 5.0), ("evaluation", 12.0)
    stored.add("squentropy", [60.0], "pruned", run_dir=write_events(tmp_path / "1", *other))
    stored.add("squentropy", [60.0], run_dir=str(tmp_path / "gone"))
    return stored


def test_a_session_lasts_from_a_start_to_the_last_event_before_the_next(tmp_path):
    table = sessions_table(stored_sessions(tmp_path).study)
    seconds = [(row.start.timestamp(), row.end.timestamp()) for row in table.itertuples()]
    assert seconds[:3] == [(0.0, 10.0), (5.0, 12.0), (20.0, 30.0)]
    assert table["number"].tolist() == [0, 1, 0, 2]
    assert table["start"][0].to_pydatetime() == datetime(1970, 1, 1, tzinfo=UTC)


def test_sessions_take_the_first_free_slot_of_their_device(tmp_path):
    table = sessions_table(stored_sessions(tmp_path).study)
    assert table["lane"].tolist()[:3] == ["cuda:1, slot 0", "cuda:1, slot 1", "cuda:1, slot 0"]


def test_a_trial_without_its_files_has_optunas_times_and_the_studys_device(tmp_path):
    last = sessions_table(stored_sessions(tmp_path).study).iloc[-1]
    assert last["lane"] == "cpu, slot 0"
    assert last["start"] <= last["end"]


def test_plot_timeline_has_a_bar_per_session_in_milliseconds(tmp_path):
    figure = plots.plot_timeline(sessions_table(stored_sessions(tmp_path).study), ARMS)
    bars = {bar.name: bar for bar in figure.data}
    assert bars["cross_entropy"].x == (10_000.0, 10_000.0)
    assert bars["cross_entropy"].base[1].startswith("1970-01-01T00:00:20")
    assert bars["squentropy"].marker.opacity[0] < bars["cross_entropy"].marker.opacity[0]


def test_plot_timeline_of_a_study_without_a_trial_says_so(tmp_path):
    figure = plots.plot_timeline(sessions_table(StoredStudy(tmp_path).study), ARMS)
    assert figure.layout.annotations[0].text == "No trial has been started yet."
