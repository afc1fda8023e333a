"""events.jsonl: whole lines only, whatever a dying process left."""

from pathlib import Path

from gpt.events import FILE, append_event, read_events


def test_events_are_read_from_where_the_last_look_ended(tmp_path: Path):
    append_event(tmp_path, "start", pid=1)
    first, offset = read_events(tmp_path)
    append_event(tmp_path, "done", step=5)
    second, offset = read_events(tmp_path, offset)
    assert [e["event"] for e in first + second] == ["start", "done"]
    assert read_events(tmp_path, offset) == ([], offset)


def test_a_directory_without_a_log_has_no_events(tmp_path: Path):
    assert read_events(tmp_path) == ([], 0)


def test_a_line_without_its_end_is_left_for_later(tmp_path: Path):
    append_event(tmp_path, "start", pid=1)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"event": "eval')
    events, offset = read_events(tmp_path)
    assert len(events) == 1
    with (tmp_path / FILE).open("a") as file:
        file.write('uation", "step": 2}\n')
    assert read_events(tmp_path, offset)[0] == [{"event": "evaluation", "step": 2}]


def test_a_torn_line_of_a_killed_process_is_passed_over(tmp_path: Path):
    append_event(tmp_path, "start", pid=1)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"event": "evaluation", "st')
    append_event(tmp_path, "start", pid=2)
    assert [e["pid"] for e in read_events(tmp_path)[0]] == [1, 2]
