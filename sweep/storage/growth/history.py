"""Extensions of a study so far, as it holds them."""

from dataclasses import dataclass

import optuna

from sweep.storage.schema import study_attrs


@dataclass(frozen=True)
class Extension:
    """An entry of the study's attribute "extensions"."""

    study: str  # whose trials were taken over
    keys: list[str]  # of the study file, that differ
    trials: dict[str, int]  # taken over, by arm

    def line(self) -> str:
        """Return it in words."""
        by_arm = ", ".join(f"{arm} {count}" for arm, count in self.trials.items())
        return f"{sum(self.trials.values())} trials taken over ({by_arm or 'none'})"


def extensions(study: optuna.Study) -> list[Extension]:
    """Read the extensions of a study, the oldest first."""
    return [Extension(**one) for one in study_attrs(study).extensions or []]
