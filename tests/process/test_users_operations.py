"""Whatever Optuna's own tools and a file manager do to a study, nothing complete is lost.

Operations are drawn by a seed. After each, what reads a study is right or ends with one clear line,
and after the last its report, too; then `run` reaches its total, or says why not.
"""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from invariants import trial_processes
from optuna.trial import TrialState, create_trial
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.errors import SquenSweepError
from sweep.analysis.results import best_by_arm, evaluations_table, trials_table
from sweep.analysis.study_reader import read_study
from sweep.export.trial import export
from sweep.report.report import render
from sweep.report.status_table import status_json
from sweep.storage.rdb import close_all, open_storage
from sweep.storage.reader import load_study
from sweep.storage.schema import study_attrs
from sweep.study.spec import StudySpec

OPERATIONS_EACH = 5


class Hands:
    """A study of three trials in a folder, and what people do to it."""

    def __init__(self, folder: Path, spec: StudySpec, seed: int) -> None:
        self.folder = folder
        self.spec = spec
        self.random = random.Random(seed)
        self.names = ["tiny"]  # of studies that are there
        self.done: list[str] = []
        self.copies = 0

    @property
    def database(self) -> str:
        return str(self.folder / "sweep.db")

    def study(self) -> optuna.Study:
        return load_study(open_storage(self.database), self.names[0])

    def enqueue(self) -> None:
        fixed = self.random.choice([{}, {"learning_rate": 3e-3}, {"learning_rate": -1.0}, {"x": 1}])
        self.study().enqueue_trial(fixed)

    def add(self) -> None:
        value = self.random.choice([0.001, 1e6, float("inf")])
        self.study().add_trial(create_trial(value=value))

    def ask(self) -> None:
        self.study().ask()

    def ask_and_tell(self) -> None:
        study = self.study()
        state = self.random.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        study.tell(study.ask(), 1.0 if state == TrialState.COMPLETE else None, state=state)

    def set_attributes(self) -> None:
        self.study().set_user_attr("somebody", "was here")

    def rename(self) -> None:
        new = f"renamed-{len(self.done)}"
        with sqlite3.connect(self.database) as connection:
            old = self.names[0]
            connection.execute("UPDATE studies SET study_name = ? WHERE study_name = ?", (new, old))
        connection.close()
        self.names[0] = new

    def copy_study(self) -> None:
        self.copies += 1
        url = f"sqlite:///{self.database}"
        optuna.copy_study(
            from_study_name=self.names[0],
            from_storage=url,
            to_storage=url,
            to_study_name=f"copy-{self.copies}",
        )
        self.names.append(f"copy-{self.copies}")

    def delete_copy(self) -> None:
        if len(self.names) > 1:
            storage = open_storage(self.database)
            optuna.delete_study(study_name=self.names.pop(), storage=storage)

    def copy_database(self) -> None:
        shutil.copy(self.database, self.folder / f"backup-{len(self.done)}.db")

    def delete_run(self) -> None:
        for run_dir in sorted(self.folder.glob("runs/tiny/[0-9]*")):
            if self.random.random() < 0.5:
                shutil.rmtree(run_dir)
                return

    def truncate_events(self) -> None:
        for path in sorted(self.folder.glob("runs/tiny/[0-9]*/events.jsonl")):
            path.write_bytes(path.read_bytes()[: self.random.randrange(400)])
            return

    def move(self) -> None:
        """Move the project: database, runs, text."""
        self.folder = Path(shutil.move(self.folder, f"{self.folder}-{len(self.done)}"))
        text = self.spec.data.model_copy(update={"source": str(self.folder / "text")})
        self.spec = self.spec.model_copy(update={"data": text})

    OPERATIONS: tuple[Callable[["Hands"], None], ...] = (
        enqueue,
        add,
        ask,
        ask_and_tell,
        set_attributes,
        rename,
        copy_study,
        delete_copy,
        copy_database,
        delete_run,
        truncate_events,
        move,
    )

    def operate(self) -> None:
        operation = self.random.choice(self.OPERATIONS)
        self.done.append(operation.__name__)
        operation(self)


def complete(study: optuna.Study) -> dict[int, float]:
    """Our complete trials and their values."""
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    return {t.number: t.values[0] for t in trials if "arm" in t.user_attrs}


def evaluations(hands: Hands) -> list[tuple[int, int, float]]:
    """Trial number, step and perplexity of all that was measured."""
    table = evaluations_table(open_storage(hands.database), hands.names[0])
    rows = table[["trial_number", "step", "perplexity"]]
    return list(rows.itertuples(index=False, name=None))


def read_or_refuse(action: Callable[[], object]) -> None:
    """It succeeds, or ends with one clear line."""
    refusal = ""
    try:
        action()
    except SquenSweepError as error:
        refusal = str(error)
    assert "\n" not in refusal


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a sweep of three trials."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        run_tiny(tiny_study(folder, write_stories(folder / "text")), folder, trials=3)
    close_all()  # the database is one file, to be copied
    return folder


@pytest.mark.parametrize("seed", range(8))
def test_no_sequence_of_operations_loses_what_was_complete(
    seed: int, finished: Path, tmp_path: Path, cache: Path
):
    folder = Path(shutil.copytree(finished, tmp_path / "project"))
    hands = Hands(folder, tiny_study(tmp_path, folder / "text"), seed)
    before, steps = complete(hands.study()), evaluations(hands)
    assert (len(before), len(steps)) == (3, 9)
    for _ in range(OPERATIONS_EACH):
        hands.operate()
        for name in hands.names:
            study = load_study(open_storage(hands.database), name)
            assert complete(study) == before, hands.done
            assert len(trials_table(study)) == len(study.trials)
            best = best_by_arm(study)
            assert {number for number, _ in best.values()} <= set(before), hands.done
            status_json(study)
            read_or_refuse(lambda study=study: export(study))
        assert evaluations(hands) == steps, hands.done
    storage = open_storage(hands.database)
    for name in hands.names:
        study = load_study(storage, name)
        read_or_refuse(lambda study=study: render(read_study(storage, study), []))
    named = hands.spec.model_copy(update={"name": hands.names[0]})
    total = len(hands.study().trials) + 1
    read_or_refuse(lambda: run_tiny(named, hands.folder, trials=total))
    after = hands.study()
    assert complete(after).items() >= before.items(), hands.done
    assert study_attrs(after).identity is not None
    assert not trial_processes(tmp_path)
