"""A disk that is really full, for machines that let one be mounted:

    unshare -rm python tests/helpers/full_disk.py

mounts a small tmpfs that nobody else sees, fills it while a sweep writes there, makes space and
lets the same command go on; three times, with another part of the sweep on that disk. The suite
itself limits the size of files instead, which needs no mount (tests/process/test_faults.py).
"""

import os
import subprocess
import tempfile
from pathlib import Path

from invariants import (
    assert_sound,
    assert_undisturbed,
    evaluated,
    events_of,
    leftovers,
    start_command,
    stored_trials,
    trial_processes,
    wait_until,
)
from optuna.trial import TrialState
from tiny_runs import write_stories
from tiny_studies import tiny_study

from gpt import checkpoint

TRIALS = 3
CASES = {  # what lies on the small disk, and how many bytes are left there
    "the database": ("", "runs", 0),
    "run directories, no byte left": ("runs", "", 0),
    "run directories, 24 kB left": ("runs", "", 24_000),
    "everything": ("", "", 0),
}


def sweep_on_a_full_disk(folder: Path, elsewhere: str, small: str, left: int) -> str:
    """Fill the disk of a sweep in `folder` while it runs, then let it go on; how it ended first."""
    disk = folder / small
    mount(disk)
    if elsewhere:
        (folder / elsewhere).symlink_to(tempfile.mkdtemp(dir=folder.parent))
    tiny_study(folder, write_stories(folder.parent / "text"), max_steps=600, eval_interval=20)
    process = start_command(folder, TRIALS)
    wait_until(lambda: evaluated(folder) >= 4)
    fill(disk, left)
    output, _ = process.communicate()
    assert process.returncode == 74, output
    assert not trial_processes(folder)
    assert "Traceback" not in output
    (disk / "filler").unlink()
    assert not leftovers(folder)
    unfinished = [t for t in stored_trials(folder) if not t.state.is_finished()]
    assert unfinished
    assert {t.state for t in unfinished} <= {TrialState.WAITING, TrialState.RUNNING}
    for trial in unfinished:
        saved = checkpoint.load(folder / "runs" / "tiny" / str(trial.number))
        assert saved is None or not saved.skipped
    again, _ = start_command(folder, TRIALS).communicate()
    assert {t.user_attrs["outcome"] for t in stored_trials(folder)} == {"complete"}, again
    assert_sound(folder, TRIALS)
    assert_undisturbed(folder)
    assert len(events_of(folder, "start")) > TRIALS
    return output.splitlines()[-1]


def mount(place: Path) -> None:
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=True)


def fill(disk: Path, left: int) -> None:
    """All but so many bytes."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - left))


def main() -> None:
    for name, (small, elsewhere, left) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SQUEN_SWEEP_CACHE"] = str(Path(folder) / "cache")
            line = sweep_on_a_full_disk(Path(folder) / "sweep", elsewhere, small, left)
            print(
                f"{name}: exit 74, {line}\n  after space was made: sound, bit for bit", flush=True
            )
            subprocess.run(["umount", "--lazy", str(Path(folder) / "sweep" / small)], check=True)


if __name__ == "__main__":
    main()
