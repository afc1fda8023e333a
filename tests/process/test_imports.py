"""What is slow to import is imported where it is used."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("sweep.visualization", {"torch"}),
        ("sweep.analysis.results", {"torch", "plotly", "pandas", "sqlalchemy"}),
        ("sweep.callbacks.trackers", {"wandb", "mlflow"}),
        ("sweep.storage.reader", {"sqlalchemy", "alembic", "pandas", "pydantic"}),
        ("sweep.report.status_table", {"sqlalchemy", "pandas", "torch", "rich"}),
        ("sweep.tuner.doctor", {"sqlalchemy", "pandas", "torch"}),
        ("sweep.cli", {"optuna", "pydantic", "psutil", "numpy"}),
    ],
)
def test_a_module_is_imported_without_what_is_slow_to_import(module: str, unwanted: set[str]):
    code = f"import sys, {module}; print({unwanted} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
