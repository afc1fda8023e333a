"""Scripts of other frameworks in studies/examples, swept as they are."""

import os
import sys
from pathlib import Path

import optuna
import pytest
from forked import Forked
from invariants import ROOT

from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study

EXAMPLES = ROOT / "studies" / "examples"


def swept(name: str, folder: Path) -> optuna.Study:
    """The study of an example after two trials, one of each arm."""
    words = ("run", "--study", str(EXAMPLES / f"{name}.toml"), "--trials", "2", "--workers", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.setenv("OMP_NUM_THREADS", "1")
        sweep = Forked(folder, *words, "--device", "cpu")
    assert sweep.wait() == 0, sweep.printed()
    return load_study(open_storage(str(folder / "runs" / "sweep.db")), name.replace("_", "-"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("hf_trainer", 20), ("lightning_fit", 4)])
def test_a_script_of_another_framework_is_swept_as_it_is(name: str, steps: int, tmp_path: Path):
    study = swept(name, tmp_path)
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 2
    assert [trial.last_step for trial in study.get_trials()] == [steps] * 2
    assert study.direction.name == ("MAXIMIZE" if name == "lightning_fit" else "MINIMIZE")
