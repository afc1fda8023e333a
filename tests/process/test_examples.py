"""Scripts of other frameworks in studies/examples, swept as they are."""

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from invariants import ROOT

from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study

EXAMPLES = ROOT / "studies" / "examples"


def swept(name: str, folder: Path) -> optuna.Study:
    """The study of an example after two trials, one of each arm."""
    command = [sys.executable, "-m", "sweep", "run", "--study", str(EXAMPLES / f"{name}.toml")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        [*command, "--trials", "2", "--workers", "2", "--device", "cpu"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return load_study(open_storage(str(folder / "runs" / "sweep.db")), name.replace("_", "-"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("hf_trainer", 20), ("lightning_fit", 4)])
def test_a_script_of_another_framework_is_swept_as_it_is(name: str, steps: int, tmp_path: Path):
    study = swept(name, tmp_path)
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE"] * 2
    assert [trial.last_step for trial in study.get_trials()] == [steps] * 2
    assert study.direction.name == ("MAXIMIZE" if name == "lightning_fit" else "MINIMIZE")
