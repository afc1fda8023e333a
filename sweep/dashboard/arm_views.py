"""Each arm of a sweep as a study of its own, for Optuna Dashboard's compare page. Writes nothing.

That page lays whole studies side by side, and a sweep is one study of all its arms. So the
dashboard is given a storage that shows, beside the studies that are there, one more for each arm.
They are read off the sweep whenever they are asked for, and are in no database: they are never
out of date, no other command meets them, and nothing of them stays behind.
"""

import copy
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from sweep.analysis.results import arm_of
from sweep.dashboard.access import READING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FACTOR = 10_000  # view 30_002 is the second arm of study 3
SWEEP_NUMBER = "number_in_sweep"  # user attribute of a view's trials, which count from 0


@dataclass(frozen=True)
class View:
    """One arm of a stored study."""

    study: FrozenStudy
    arm: str
    view_id: int

    @property
    def name(self) -> str:
        """What the dashboard calls it: with a colon, which no study of ours has in its name."""
        return f"{self.study.study_name}: {self.arm}"

    def frozen(self) -> FrozenStudy:
        """The study that the dashboard lists."""
        return FrozenStudy(
            study_name=self.name,
            direction=self.study.direction,
            user_attrs={"arm": self.arm, "study": self.study.study_name},
            system_attrs=self.system_attrs(),
            study_id=self.view_id,
        )

    def system_attrs(self) -> dict[str, Any]:
        """The sweep's notes of trials and name of the metric; a note of its own, no figures."""
        kept = {
            key: value
            for key, value in self.study.system_attrs.items()
            if re.match(r"dashboard:\d+:note_|study:metric_names", key)
        }
        note = (
            f"The trials of {self.arm} in study {self.study.study_name}, as they are now. To be "
            f"looked at and compared: notes, figures and everything else belong to the study."
        )
        return kept | {"dashboard:note_ver": 1, "dashboard:note_str:0": note}


def views_of(study: FrozenStudy) -> list[View]:
    """A view for each arm of a sweep that compares several; none of a study of other kind."""
    spec = study.user_attrs.get("spec", {})
    compared = spec.get("compare")
    if compared is None or "of" in study.user_attrs:  # confirm runs belong to a sweep
        return []
    arms = [str(choice) for choice in spec["search"][compared]["choices"]]
    return [
        View(study, arm, view_id(study._study_id, place))
        for place, arm in enumerate(arms, start=1)
        if len(arms) > 1
    ]


def view_id(study_id: int, place: int) -> int:
    """The id of a view: of the first arm of the study file, place 1, and so on."""
    return FACTOR * study_id + place


class ArmViews(RDBStorage):
    """A storage with a view of each arm beside its studies."""

    def get_all_studies(self) -> list[FrozenStudy]:
        """Its studies, and the views."""
        studies = super().get_all_studies()
        return [*studies, *(view.frozen() for view in _views(studies))]

    def get_study_id_from_name(self, study_name: str) -> int:
        """The id of a study or view."""
        for view in self._all_views():
            if view.name == study_name:
                return view.view_id
        return super().get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """The name of a study or view."""
        view = self.view(study_id)
        return view.name if view else super().get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """A view's are those of its study."""
        return super().get_study_directions(self._real(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """A view has its arm and the name of its study."""
        view = self.view(study_id)
        return view.frozen().user_attrs if view else super().get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See View.system_attrs."""
        view = self.view(study_id)
        return view.system_attrs() if view else super().get_study_system_attrs(study_id)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best of the arm."""
        if self.view(study_id) is None:
            return super().get_best_trial(study_id)
        complete = self._get_trials(study_id, (TrialState.COMPLETE,), set(), -1)
        if not complete:
            raise ValueError("No trials are completed yet.")  # as Optuna says it
        return min(complete, key=lambda trial: trial.values[0])

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """What get_all_trials and Optuna's cache read by: of a view the arm's trials, from 0 on."""
        view = self.view(study_id)
        if view is None:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        trials = super()._get_trials(view.study._study_id, None, set(), -1)
        mine = [trial for trial in trials if arm_of(trial) == view.arm]
        numbered = (_numbered(trial, number) for number, trial in enumerate(mine))
        return [trial for trial in numbered if states is None or trial.state in states]

    def view(self, study_id: int) -> View | None:
        """The view of this id; None where it is a study's, or nobody's."""
        if study_id < FACTOR:
            return None
        return next((view for view in self._all_views() if view.view_id == study_id), None)

    def _all_views(self) -> list[View]:
        return _views(super().get_all_studies())

    def _real(self, study_id: int) -> int:
        view = self.view(study_id)
        return view.study._study_id if view else study_id


def _views(studies: Iterable[FrozenStudy]) -> list[View]:
    """All views, without those whose id is a study's: that one is shown."""
    studies = list(studies)
    taken = {study._study_id for study in studies}
    return [view for study in studies for view in views_of(study) if view.view_id not in taken]


def _numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    """The trial under another number: the dashboard takes a number for a place in the list."""
    shown = copy.copy(trial)
    shown.number = number
    shown._user_attrs = {SWEEP_NUMBER: trial.number, **trial.user_attrs}
    return shown


def with_arm_views(storage: RDBStorage) -> ArmViews:
    """The same database with a view of each arm."""
    return ArmViews(str(storage.url), engine_kwargs=storage.engine_kwargs, skip_table_creation=True)


def read_only(app: "WSGIApplication", storage: ArmViews) -> "WSGIApplication":
    """The dashboard, with 403 for whatever would rename, delete or annotate a view."""

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        found = re.match(r"/api/(?:studies|artifacts)/(\d+)", environ["PATH_INFO"])
        changes = environ["REQUEST_METHOD"] not in READING
        if found and changes and storage.view(int(found[1])):
            start("403 Forbidden", [("Content-Type", "application/json")])
            return [b'{"reason": "This is one arm of a study: change the study itself."}']
        return app(environ, start)

    return answer
