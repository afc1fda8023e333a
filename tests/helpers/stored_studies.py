"""A stored study written trial by trial, without training, for the tests of what reads studies."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.orm import Session

from gpt.events import Evaluation
from sweep.storage.location import runs_folder
from sweep.storage.rdb import create_study, open_storage
from sweep.storage.tables import evaluations
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file

STUDY = """
name = "tiny"
description = "Small, <script>alert('description')</script> and quick."
question = "Which loss is <b>better</b>?"
compare = "loss"
[search.learning_rate]
low = 1e-4
high = 1e-2
log = true
[search.n_layer]
low = 1
high = 6
[search.square_weight]
low = 0.1
high = 2.0
when = { loss = "squentropy" }
[search.loss]
choices = ["cross_entropy", "squentropy"]
"""

PROGRAM = """
name = "tiny"
compare = "optimizer"
[trainer]
command = "python train.py {optimizer} {learning_rate} {n_layer} {seed}"
metric = { name = "accuracy", direction = "maximize" }
[search.optimizer]
choices = ["adamw", "muon", "sgd"]
[search.learning_rate]
low = 1e-4
high = 1e-2
log = true
[search.n_layer]
low = 1
high = 6
"""

DATA = {
    "fingerprint": "0123456789abcdef",
    "kind": "files",
    "name": "my stories",
    "notice": None,
    "tokenizer": "bpe-300",
    "vocab_size": 300,
    "train_stories": 1200,
    "train_tokens": 34567,
    "validation_stories": 60,
    "validation_tokens": 1789,
    "eval_tokens": 1024,
    "floor_perplexity": None,
}
BUILT_IN = {"kind": "built-in", "notice": "NOT TinyStories", "floor_perplexity": 7.5}

STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "timeout": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


@cache
def empty_database() -> bytes:
    """A database with its tables, made once: it takes as long as all else here."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        open_storage(str(path), create=True).engine.dispose()
        return path.read_bytes()


def add_at_once(
    storage: RDBStorage, study_id: int, number: int, trials: Sequence[FrozenTrial]
) -> list[int]:
    """Add trials as Study.add_trials does, which waits for the disk at each and asks the database
    before each row; ten times as fast for one, and thousands in a few seconds.

    Args:
        number: Of the first of them in the study.

    Returns:
        The trial_id of each.
    """
    objectives, steps = models.TrialValueModel, models.TrialIntermediateValueModel
    params, attrs = models.TrialParamModel, models.TrialUserAttributeModel
    rows: dict[type[models.BaseModel], list[dict[str, Any]]] = defaultdict(list)
    with Session(storage.engine) as session:
        added = [
            models.TrialModel(
                study_id=study_id,
                number=number + nth,
                state=trial.state,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
            )
            for nth, trial in enumerate(trials)
        ]
        session.add_all(added)
        session.flush()
        for row, trial in zip(added, trials, strict=True):
            key = {"trial_id": row.trial_id}
            for objective, value in enumerate(trial.values or ()):
                stored, kind = objectives.value_to_stored_repr(value)
                told = {"objective": objective, "value": stored, "value_type": kind}
                rows[objectives].append(key | told)
            for name, param in trial.params.items():
                space = trial.distributions[name]
                inner, written = space.to_internal_repr(param), distribution_to_json(space)
                searched = {"param_name": name, "param_value": inner, "distribution_json": written}
                rows[params].append(key | searched)
            for name, attr in trial.user_attrs.items():
                rows[attrs].append(key | {"key": name, "value_json": json.dumps(attr)})
            for step, value in trial.intermediate_values.items():
                stored, kind = steps.intermediate_value_to_stored_repr(value)
                seen = {"intermediate_value": stored, "intermediate_value_type": kind}
                rows[steps].append(key | seen | {"step": step})
        for model, of_model in rows.items():
            session.execute(sa.insert(model), of_model)
        ids = [int(row.trial_id) for row in added]
        session.commit()
    return ids


class StoredStudy:
    """A study in a SQLite file to which trials are added as the tuner leaves them."""

    def __init__(self, folder: Path, text: str = STUDY, **data: Any) -> None:
        path = folder / "study.toml"
        path.write_text(text)
        self.spec: StudySpec = read_study_file(str(path), "cpu")
        self.path = folder / "sweep.db"
        self.path.write_bytes(empty_database())
        self.storage: RDBStorage = open_storage(str(self.path))
        self.study: optuna.Study = create_study(self.storage, self.spec, DATA | data, "cpu")
        self.study.set_user_attr("device", "cpu")
        self.study.set_user_attr("n_trials", 40)

    @cached_property
    def _runs(self) -> Path:
        return runs_folder(self.study)

    def _count(self) -> int:
        trials = models.TrialModel.__table__
        mine = sa.select(sa.func.count()).where(trials.c.study_id == self.study._study_id)
        with self.storage.engine.connect() as connection:
            return connection.scalar(mine) or 0

    def add(
        self,
        arm: str,
        perplexities: list[float],
        outcome: str = "complete",
        origin: str = "sampler",
        shadow: int | None = None,
        **params: Any,
    ) -> int:
        """Add a trial that was evaluated every 100 steps, each of 10 tokens; returns its number."""
        number = self._count()
        params = {"learning_rate": 1e-3, "n_layer": 2} | params
        if self.spec.compare:
            choices = self.spec.search[self.spec.compare].choices or []
            params[self.spec.compare] = choices[self.spec.arms.index(arm)]
        told = perplexities[-1:] if STATES[outcome] in (TrialState.COMPLETE,) else []
        steps = range(100, 100 * len(perplexities) + 1, 100)
        attributes = {"arm": arm, "origin": origin, "n_params": 1000}
        if shadow is not None:
            attributes["shadow"] = shadow
        if outcome != "running":
            attributes["outcome"] = outcome
        if outcome not in ("complete", "running"):
            attributes["reason"] = f"it {outcome}"
        trial = create_trial(
            state=STATES[outcome],
            values=told or ([300.0] if outcome == "diverged" else None),
            params=params,
            distributions=self.spec.distributions(params),
            user_attrs=attributes,
            intermediate_values=dict(zip(steps, perplexities, strict=True)),
        )
        (trial_id,) = add_at_once(self.storage, self.study._study_id, number, [trial])
        (self._runs / str(number)).mkdir(parents=True, exist_ok=True)
        measured = [evaluation(*pair) for pair in zip(steps, perplexities, strict=True)]
        self.record({trial_id: measured})
        return number

    def record(self, measured: Mapping[int, Sequence[Evaluation]]) -> None:
        """Add rows to the evaluations table, by trial_id."""
        rows = [
            {"trial_id": trial_id} | asdict(each)
            for trial_id, of_trial in measured.items()
            for each in of_trial
        ]
        if not rows:
            return
        with self.storage.engine.begin() as connection:
            connection.execute(evaluations.insert(), rows)

    def finish(self, number: int, outcome: str, perplexity: float | None) -> None:
        """End a running trial."""
        trial_id = self.study.trials[number]._trial_id
        self.storage.set_trial_user_attr(trial_id, "outcome", outcome)
        values = None if perplexity is None else [perplexity]
        self.storage.set_trial_state_values(trial_id, STATES[outcome], values)


def evaluation(step: int, perplexity: float) -> Evaluation:
    """What a run would have measured at `step`."""
    nats = math.log(perplexity) if perplexity > 0 else 0.0  # of a program, any number
    return Evaluation(
        step=step,
        tokens=10 * step,
        train_loss=nats,
        cross_entropy=nats,
        perplexity=perplexity,
        link_perplexity=perplexity,
        story_perplexity=perplexity,
        temperature_perplexity=None,
        bits_per_byte=nats / math.log(2) / 4,
        accuracy=0.4,
        calibration_error=0.02,
        brier_score=0.7,
        entropy=nats,
        mean_squared_logit=1.0,
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens_per_second=1000.0,
        elapsed_seconds=step / 50,
        peak_memory_bytes=10**8,
    )
