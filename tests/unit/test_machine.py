import math
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from optuna.trial import TrialState, create_trial
from stored_studies import StoredStudy

from sweep import visualization as plots
from sweep.analysis.machine import TIME_KINDS, flops_per_token, machine_table, time_table
from sweep.storage.schema import set_study_attrs

START = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
ARMS = ["cross_entropy", "squentropy"]


def ran(stored: StoredStudy, start: float, end: float | None, outcome: str) -> None:
    """Add a trial that ran from and to these seconds; it has no evaluation of its own."""
    state = TrialState.RUNNING if end is None else TrialState.COMPLETE
    trial = create_trial(
        state=state,
        values=None if end is None else [50.0],
        user_attrs={"arm": "cross_entropy", "outcome": outcome, "n_params": 1000},
    )
    trial.datetime_start = START + timedelta(seconds=start)
    trial.datetime_complete = None if end is None else START + timedelta(seconds=end)
    stored.study.add_trial(trial)


def evaluations(*rows: tuple[int, int, int, float, float]) -> pd.DataFrame:
    """Rows of trial, step, tokens, tokens per second and elapsed seconds."""
    names = ["trial_number", "step", "tokens", "tokens_per_second", "elapsed_seconds"]
    return pd.DataFrame(rows, columns=names).assign(peak_memory_bytes=2**20)


@pytest.fixture
def stored(tmp_path) -> StoredStudy:
    """Two trials at a time: 0 and 1, then 2 in the slot that 1 left, then 3 in that of 0."""
    stored = StoredStudy(tmp_path)
    ran(stored, 0, 40, "complete")
    ran(stored, 1, 10, "pruned")
    ran(stored, 10, 60, "complete")
    ran(stored, 41, None, "running")
    return stored


SPEEDS = evaluations(
    (0, 100, 1000, 100.0, 12.0), (0, 200, 2000, 50.0, 36.0), (1, 100, 800, 160.0, 6.0)
)


def test_a_trial_takes_the_slot_that_was_free_last(stored):
    assert machine_table(stored.study, SPEEDS)["slot"].tolist() == [1, 2, 2, 1]


def test_training_time_follows_from_tokens_and_speed_and_the_rest_is_evaluation(stored):
    table = machine_table(stored.study, SPEEDS).set_index("number")
    assert table.loc[0, "training"] == 1000 / 100 + 1000 / 50
    assert table.loc[0, "evaluation"] == 36 - 30
    assert table.loc[0, "other"] == 40 - 36
    assert table.loc[0, "tokens_per_second"] == pytest.approx(2000 / 30)
    assert math.isnan(table.loc[2, "training"])  # it measured nothing
    assert table.loc[3, "end"] == 41  # as far as it is known


def test_a_program_that_counts_no_tokens_trains_for_as_long_as_it_measures(stored):
    speeds = evaluations((0, 100, 0, math.nan, 12.0), (0, 200, 0, math.nan, 36.0))
    table = machine_table(stored.study, speeds.assign(peak_memory_bytes=0)).set_index("number")
    assert table.loc[0, ["training", "evaluation"]].tolist() == [36, 0]
    assert table["tokens_per_second"].isna().all()
    assert table["peak_memory_bytes"].isna().all()


def test_the_time_of_every_slot_is_divided_completely(stored):
    set_study_attrs(stored.study, wall_seconds=100.0)
    times = time_table(stored.study, machine_table(stored.study, SPEEDS))
    seconds = times.pivot_table(index="slot", columns="kind", values="seconds")[list(TIME_KINDS)]
    assert seconds.loc[1].tolist() == [30, 0, 6, 4, 60]
    assert seconds.loc[2].tolist() == [0, 5, 1, 3 + 50, 41]
    assert times.groupby("slot")["share"].sum().tolist() == pytest.approx([1, 1])


def test_a_sweep_without_a_trial_used_no_machine(tmp_path):
    stored = StoredStudy(tmp_path)
    machine = machine_table(stored.study, evaluations())
    assert machine.empty
    assert time_table(stored.study, machine).empty
    for figure in (plots.plot_slots(machine, ARMS), plots.plot_speed(machine, ARMS)):
        assert figure.layout.meta["empty"]


def test_the_plots_of_the_machine_draw_its_table(stored):
    machine = machine_table(stored.study, SPEEDS)
    bar = plots.plot_slots(machine, ARMS).data[0]
    assert bar.base == (0, 1 / 60, 10 / 60, 41 / 60)
    assert bar.y == ("slot 1", "slot 2", "slot 2", "slot 1")
    times = time_table(stored.study, machine)
    of_kind = plots.plot_time(times).data
    assert [trace.name for trace in of_kind] == list(TIME_KINDS)
    assert sum(trace.x[0] for trace in of_kind) == pytest.approx(1)
    assert of_kind[0].y == ("slot 1", "slot 2", "all slots")
    points = plots.plot_memory(machine, ARMS).data[0]
    assert (points.x, points.y, points.customdata) == ((0, 1), (1, 1), (0, 1))


def test_operations_of_a_token_are_six_of_each_weight_and_those_of_attention():
    train = {"n_layer": 2, "n_embd": 64, "block_size": 32}
    assert flops_per_token({}, train, 1000) == 6 * 1000 + 12 * 2 * 64 * 32
    assert flops_per_token({"n_layer": 4}, train, 1000) == 6 * 1000 + 12 * 4 * 64 * 32
