"""A stored study written trial by trial, without training, for the tests of what reads studies."""

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from gpt.events import Evaluation
from sweep.storage.rdb import create_study, open_storage, record_evaluation, runs_folder
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
        number = len(self.study.get_trials(deepcopy=False))
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
        self.study.add_trial(
            create_trial(
                state=STATES[outcome],
                values=told or ([300.0] if outcome == "diverged" else None),
                params=params,
                distributions=self.spec.distributions(params),
                user_attrs=attributes,
                intermediate_values=dict(zip(steps, perplexities, strict=True)),
            )
        )
        (runs_folder(self.study) / str(number)).mkdir(parents=True, exist_ok=True)
        trial_id = self.study.get_trials(deepcopy=False)[number]._trial_id
        for step, perplexity in zip(steps, perplexities, strict=True):
            record_evaluation(self.storage, trial_id, evaluation(step, perplexity))
        return number

    def finish(self, number: int, outcome: str, perplexity: float | None) -> None:
        """End a running trial."""
        trial_id = self.study.trials[number]._trial_id
        self.storage.set_trial_user_attr(trial_id, "outcome", outcome)
        values = None if perplexity is None else [perplexity]
        self.storage.set_trial_state_values(trial_id, STATES[outcome], values)


def evaluation(step: int, perplexity: float) -> Evaluation:
    """What a run would have measured at `step`."""
    nats = math.log(perplexity)
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
