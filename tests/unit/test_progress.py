import io
import json
import math
import re
from dataclasses import replace

import pytest
import stored_studies
from rich.console import Console

from gpt.events import Evaluation
from sweep.callbacks.live import LiveProgress, make_display
from sweep.callbacks.plain import PlainProgress, QuietProgress
from sweep.cli.console import working
from sweep.study.format import share_of, sparkline
from sweep.tuner.callback import (
    Callback,
    CallbackList,
    Counts,
    Evaluated,
    Header,
    Message,
    Notice,
    TrialFinished,
    TrialStarted,
)

SQUENTROPY = {"learning_rate": 0.00123, "n_layer": 4, "dropout": 0.1, "loss": "squentropy"}


def evaluation(step: int, perplexity: float = 63.456, seconds: float = 10.0) -> Evaluation:
    return replace(
        stored_studies.evaluation(step, perplexity),
        tokens_per_second=9812.4,
        elapsed_seconds=seconds,
    )


def live(width: int = 120) -> tuple[LiveProgress, list[float], Console]:
    """A live display that writes into memory, with a clock that stands where it is put."""
    now = [0.0]
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    return LiveProgress(console, clock=lambda: now[0]), now, console


def drawn(listener: LiveProgress, width: int = 120) -> str:
    """What the part that is redrawn shows now, as plain text."""
    console = Console(file=io.StringIO(), width=width)
    console.print(listener.draw())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_progress_prints_one_line_per_event(capsys):
    listener: Callback = PlainProgress()
    with listener:
        listener.on(Header({"study": "smoke", "device": "cpu"}))
        listener.on(Message("tokenising"))
        listener.on(TrialStarted(3, "squentropy", SQUENTROPY, 600, {}))
        listener.on(Evaluated(3, evaluation(150)))
        listener.on(TrialFinished(3, "squentropy", "pruned", 63.456, "above the median"))
        listener.on(Counts(1, 40, {"squentropy": (3, 63.456)}))
    assert capsys.readouterr().out.splitlines() == [
        "study: smoke",
        "device: cpu",
        "tokenising",
        "trial 3 started: squentropy, lr 1.23e-03, n_layer 4, dropout 0.1, 600 steps",
        "trial 3 step 150/600: perplexity 63.46, 9,812 tokens/s",
        "trial 3 pruned (squentropy): perplexity 63.46 - above the median",
        "1/40 trials finished; best: squentropy 63.46 (trial 3)",
    ]


def test_plain_progress_repeats_no_count_when_trials_end_without_one(capsys):
    listener = PlainProgress()  # interrupted, they stop one after another and are told nothing
    for finished in (1, 1, 2):
        listener.on(Counts(finished, 40, {}))
    assert capsys.readouterr().out.splitlines() == ["1/40 trials finished", "2/40 trials finished"]


def test_plain_progress_frames_a_notice(capsys):
    PlainProgress().on(Notice("these are not TinyStories figures"))
    rule, notice, end = capsys.readouterr().out.splitlines()
    assert rule == end == "=" * 80
    assert notice == "NOTICE: these are not TinyStories figures"


def test_quiet_progress_shows_only_notices_and_on_stderr(capsys):
    with QuietProgress() as listener:
        listener.on(Header({"study": "smoke"}))
        listener.on(Notice("these are not TinyStories figures"))
        listener.on(Message("tokenising"))
        listener.on(TrialStarted(3, "squentropy", SQUENTROPY, 600, {}))
        listener.on(Evaluated(3, evaluation(150)))
        listener.on(TrialFinished(3, "squentropy", "complete", 63.4, None))
        listener.on(Counts(1, 40, {}))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "NOTICE: these are not TinyStories figures\n"


def test_make_display_is_plain_where_stdout_is_no_terminal(capsys):
    assert isinstance(make_display(quiet=False), PlainProgress)
    assert isinstance(make_display(quiet=True), QuietProgress)


def test_make_display_is_live_in_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert isinstance(make_display(quiet=False), LiveProgress)


def test_make_display_is_plain_in_a_dumb_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert isinstance(make_display(quiet=False), PlainProgress)


@pytest.mark.parametrize("width", [80, 120])
def test_live_progress_has_a_whole_row_per_running_trial(width):
    listener, _, _ = live(width)
    listener.on(Counts(0, 40, {}))
    listener.on(TrialStarted(3, "squentropy", SQUENTROPY, 600, {}))
    listener.on(TrialStarted(4, "cross_entropy", SQUENTROPY | {"loss": "cross_entropy"}, 600, {}))
    listener.on(Evaluated(3, evaluation(150)))
    text = drawn(listener, width)
    assert re.search(r"3 +squentropy +1.23e-03 +4 +0.1 +150/600 .*63.46 +9,812 +0:30", text)
    assert re.search(r"4 +cross_entropy +1.23e-03 +4 +0.1 +0/600 .*- +- +-", text)
    assert "…" not in text


def test_live_progress_time_left_comes_from_the_trials_own_speed_and_runs_down():
    listener, now, _ = live()
    listener.on(TrialStarted(0, "squentropy", SQUENTROPY, 600, {}))
    listener.on(Evaluated(0, evaluation(100, seconds=20.0)))  # 0.2 s a step, 500 steps to go
    assert "1:40" in drawn(listener)
    now[0] += 40.0
    assert "1:00" in drawn(listener)


def test_live_progress_counts_running_trials_into_the_time_left_of_the_sweep():
    listener, now, _ = live()
    listener.on(Counts(10, 40, {}))  # ten by an earlier call say nothing of this one's speed
    listener.on(TrialStarted(10, "squentropy", SQUENTROPY, 600, {}))
    now[0] += 60.0
    listener.on(TrialFinished(10, "squentropy", "complete", 60.0, None))
    listener.on(Counts(11, 40, {}))
    listener.on(TrialStarted(11, "squentropy", SQUENTROPY, 600, {}))
    now[0] += 30.0
    listener.on(Evaluated(11, evaluation(300)))  # half of it: 1.5 trials in 90 s, 28.5 to go
    assert "11/40 trials" in drawn(listener)
    assert "28:30 left" in drawn(listener)


def test_live_progress_shows_best_per_arm_and_outcomes():
    listener, _, _ = live()
    listener.on(Counts(3, 40, {"cross_entropy": (2, 53.7), "squentropy": (1, 1063.1)}))
    listener.on(TrialFinished(3, "squentropy", "diverged", None, "loss nan"))
    listener.on(TrialFinished(4, "squentropy", "complete", 70.0, None))
    listener.on(Counts(5, 40, {"cross_entropy": (2, 53.7), "squentropy": (4, 70.0)}))
    text = drawn(listener)
    assert "best: cross_entropy 53.70 (trial 2), squentropy 70.00 (trial 4)" in text
    assert "3 earlier, 1 complete, 1 diverged" in text


def test_live_progress_keeps_the_notice_in_sight_to_the_end():
    listener, _, console = live()
    with listener:
        listener.on(Notice("these are not TinyStories figures"))
        listener.on(Header({"study": "smoke"}))
        for number in range(50):
            listener.on(TrialFinished(number, "squentropy", "complete", 70.0, None))
        assert "these are not TinyStories figures" in drawn(listener)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "these are not TinyStories figures" in written[written.rindex("trial 49 complete") :]


def test_a_low_terminal_has_the_notice_in_full_once_and_one_line_of_it_to_the_end():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    listener = LiveProgress(console)
    text = "these are not TinyStories figures: " + "they compare with each other only. " * 6
    listener.on(Notice(text))
    plain = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert " ".join(text.split()) in " ".join(plain.split())
    lines = drawn(listener, 80).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("NOTICE: these are not TinyStories figures")


@pytest.mark.parametrize("width", [60, 80, 180])
def test_what_is_redrawn_leaves_room_for_the_echo_of_ctrl_c(width: int):
    """At the edge it would begin a line, and the display would leave its first line behind."""
    listener, _, _ = live(width)
    listener.on(Message("reading built-in story grammar: 5,376 of 14,000 stories (38%)"))
    assert max(len(line.rstrip()) for line in drawn(listener, width).splitlines()) <= width - 2
    assert max(len(line) for line in drawn(listener, width).splitlines()) <= width - 2
    listener.on(Counts(1, 40, {}))
    listener.on(TrialStarted(4, "cross_entropy", SQUENTROPY | {"weight_decay": 0.1}, 600, {}))
    listener.on(Evaluated(4, evaluation(150)))
    text = drawn(listener, width)
    assert max(map(len, text.splitlines())) <= width - 2
    assert "…" not in text


def test_live_progress_leaves_no_running_trial_behind():
    listener, _, _ = live()
    with listener:
        listener.on(TrialStarted(3, "squentropy", SQUENTROPY, 600, {}))
    assert "squentropy" not in drawn(listener)


def test_sparkline_draws_what_is_done_by_the_logarithm():
    assert sparkline((), 0.0, width=4) == "····"
    assert sparkline((100.0, 10.0, 1.0), 0.75, width=4) == "█▅▁·"  # half a log is half a height
    assert sparkline((50.0,), 0.1, width=8) == "▁·······"
    assert sparkline((100.0, math.inf, 10.0), 1.0, width=3) == "██▁"


def test_sparkline_spreads_few_and_thins_many_evaluations():
    assert len(sparkline((9.0, 3.0), 1.0, width=6)) == 6
    assert sparkline((9.0, 3.0), 1.0, width=4) == "██▁▁"
    assert sparkline(tuple(float(i) for i in range(100, 0, -1)), 1.0, width=5)[-1] == "▁"


def test_live_progress_draws_the_curve_of_a_running_trial_in_a_wide_terminal():
    listener, _, _ = live()
    listener.on(TrialStarted(3, "squentropy", SQUENTROPY, 600, {}))
    for step, perplexity in ((150, 90.0), (300, 45.0)):
        listener.on(Evaluated(3, evaluation(step, perplexity)))
    assert "████▁▁▁▁········" in drawn(listener)


def test_live_progress_spins_until_the_first_counts():
    listener, _, _ = live()
    listener.on(Message("tokenising my stories"))
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", drawn(listener))
    listener.on(Counts(0, 40, {}))
    assert not re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", drawn(listener))


def test_live_progress_draws_a_bar_where_a_message_has_a_percentage():
    listener, _, _ = live()
    with listener:
        listener.on(Message("tokenising: 3 of 4 stories (75%)"))
        assert "━" in drawn(listener)
        assert "tokenising: 3 of 4 stories (75%)" in drawn(listener)
        listener.on(Counts(0, 40, {}))
        assert "tokenising" not in drawn(listener)
    assert share_of("tokenising: 3 of 4 stories (75%)") == 0.75
    assert share_of("after 30% of the steps") is None


def test_working_shows_nothing_where_stderr_is_no_terminal(capsys):
    with working("writing the report") as show:
        show("drawing curves", 0.5)
        show("drawing what takes as long as it takes")
    assert capsys.readouterr() == ("", "")


def test_working_moves_a_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setenv("TERM", "xterm")
    with working("writing the report") as show:
        show("drawing [curves]", 0.5)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "writing the report: drawing [curves]" in shown.err
    assert "━" in shown.err


def test_json_progress_prints_one_object_per_event(capsys):
    listener = make_display(quiet=False, json_lines=True)
    with listener:
        listener.on(TrialStarted(3, "squentropy", SQUENTROPY, 600, {}))
        listener.on(Evaluated(3, evaluation(150, math.inf)))
        listener.on(TrialFinished(3, "squentropy", "pruned", 63.456, "above the median"))
        listener.on(Counts(1, 40, {"squentropy": (3, 63.456)}))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == [
        "trial_started", "evaluation", "trial_finished", "counts"
    ]  # fmt: skip
    assert (events[1]["step"], events[1]["perplexity"]) == (150, None)
    assert events[3]["best"] == {"squentropy": {"trial": 3, "perplexity": 63.456}}


def test_several_listeners_are_told_the_same_in_their_order(capsys):
    with CallbackList(PlainProgress(), PlainProgress()) as listener:
        listener.on(Message("tokenising"))
        listener.on(Counts(1, 40, {}))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["tokenising", "tokenising", *["1/40 trials finished"] * 2]
