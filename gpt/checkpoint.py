"""Checkpoints that a kill at any moment cannot spoil: safetensors and JSON, never a pickle.

In run_dir/checkpoints/step-000300/:

    model.safetensors      weights, named as nanoGPT's, without the tied lm_head
    optimizer.safetensors  the optimisers' tensors and the random state; absent once the run is done
    state.json             counters, what of the configuration makes the steps, and the SHA-256 of
                           the files above and of itself

A checkpoint is written into a temporary folder, flushed to the disk, then renamed. The last two are
kept, the one of the best evaluation, and the one from which a longer run goes on.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from gpt.errors import DataError
from gpt.system.files import sha256_of, sync

if TYPE_CHECKING:
    from torch import Tensor

FILES = ("model.safetensors", "optimizer.safetensors")
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)  # state.json may be any JSON
KEEP = 2  # if the newest turns out damaged, the one before it serves


class DamagedCheckpointError(DataError):
    """Every checkpoint of a run is damaged.

    Attributes:
        reasons: One for each checkpoint, the newest first.
    """

    def __init__(self, folder: Path, reasons: list[str]) -> None:
        super().__init__(
            f"{folder} must hold an intact checkpoint, but {'; '.join(reasons)}; "
            f"train it again from the start in another directory."
        )
        self.reasons = reasons


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read and verified."""

    step: int
    model: dict[str, "Tensor"]
    optimizer: "dict[str, Tensor] | None"  # None: the run is done, only its weights are kept
    state: dict[str, Any]
    skipped: tuple[str, ...] = ()  # newer checkpoints that were damaged, each with the reason


def save(
    run_dir: Path,
    step: int,
    model: dict[str, "Tensor"],
    optimizer: "dict[str, Tensor] | None",
    state: dict[str, Any],
    kept: Collection[int] = (),
) -> None:
    """Write the checkpoint of `step`; drop all but the last KEEP, or all others if the run is done.

    Args:
        run_dir: The checkpoint goes below it.
        step: Optimiser steps so far.
        model: Weights by name.
        optimizer: Its state and the random state; None once the run is done.
        state: Counters, as JSON can hold them.
        kept: Checkpoints of these steps are kept as well.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / _name(step)
    if _is_intact(final):  # a run that was continued and stopped again before its next step
        return
    temporary = folder / f".{final.name}.{os.getpid()}"
    # of a killed process with this id: in a container each start has the same one
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        tensors = {"model.safetensors": model}
        if optimizer is not None:
            tensors["optimizer.safetensors"] = optimizer
        for name, content in tensors.items():
            _save_tensors(content, temporary / name)
        hashes = {name: sha256_of(temporary / name) for name in tensors}
        manifest = {"step": step, "sha256": hashes, "state": state}
        text = json.dumps({**manifest, "own_sha256": _own_sha256(manifest)}, indent=1)
        (temporary / "state.json").write_text(text)
        _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_old(run_dir, keep=1 if optimizer is None else KEEP, kept=kept)


def load(run_dir: Path, step: int | None = None) -> Checkpoint | None:
    """Read the newest intact checkpoint, or that of a step; None if there is no checkpoint.

    Raises:
        DamagedCheckpointError: there are checkpoints, and every one is damaged.
    """
    skipped: list[str] = []
    for path in reversed(_checkpoints(run_dir / "checkpoints")):
        if step not in (None, _step_of(path)):
            continue
        try:
            return _read(path, tuple(skipped))
        except (*UNREADABLE, SafetensorError) as error:
            skipped.append(f"{path.name}: {error}")
    if skipped:
        raise DamagedCheckpointError(run_dir / "checkpoints", skipped)
    return None


def damaged(run_dir: Path) -> list[tuple[Path, str]]:
    """List the damaged checkpoints of a run, each with the reason."""
    found = []
    for path in _checkpoints(run_dir / "checkpoints"):
        try:
            _verified(path)  # with the hash that was written, a file is what was written
        except UNREADABLE as error:
            found.append((path, str(error)))
    return found


def steps_of(run_dir: Path) -> list[int]:
    """List the steps of a run's checkpoints, which may be damaged, in order."""
    return [_step_of(path) for path in _checkpoints(run_dir / "checkpoints")]


def has_optimizer(run_dir: Path, step: int) -> bool:
    """Return True if the checkpoint of a step is intact and a run can go on from it exactly."""
    path = run_dir / "checkpoints" / _name(step)
    return _is_intact(path) and (path / FILES[1]).exists()


def discard(run_dir: Path, after: int | None = None) -> None:
    """Remove every checkpoint of a run, or those after a step."""
    if after is None:
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
        return
    for path in reversed(_checkpoints(run_dir / "checkpoints")):
        if _step_of(path) > after:
            shutil.rmtree(path)


def _save_tensors(tensors: dict[str, "Tensor"], path: Path) -> None:
    from safetensors.torch import save_file  # late: checking a checkpoint needs no torch

    try:
        save_file(tensors, path)
    except SafetensorError as error:  # which hides the number of the operating system's error
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None


def _is_intact(path: Path) -> bool:
    try:
        _verified(path)
    except UNREADABLE:
        return False
    return True


def _verified(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint once its files have the hashes that it lists."""
    manifest = _manifest(path)
    for name, expected in manifest["sha256"].items():
        if sha256_of(path / name) != expected:  # torch and safetensors load a flipped bit silently
            raise _altered(name)
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    for file in (path, *path.iterdir()):
        if file.is_symlink():  # a stranger's may lead anywhere
            raise ValueError(f"{file.name} must not be a link")
    manifest: dict[str, Any] = json.loads((path / "state.json").read_text())
    if manifest.pop("own_sha256") != _own_sha256(manifest):
        raise _altered("state.json")
    hashes = manifest["sha256"]
    if FILES[0] not in hashes or set(hashes) - set(FILES):
        raise ValueError(f"state.json must have the SHA-256 of {' and '.join(FILES)}")
    return manifest


def _read(path: Path, skipped: tuple[str, ...]) -> Checkpoint:
    manifest = _manifest(path)
    tensors = {name: _tensors(path / name, sha256) for name, sha256 in manifest["sha256"].items()}
    return Checkpoint(
        step=manifest["step"],
        model=tensors[FILES[0]],
        optimizer=tensors.get(FILES[1]),
        state=manifest["state"],
        skipped=skipped,
    )


def _tensors(path: Path, sha256: str) -> "dict[str, Tensor]":
    """Read a file once, so that what trains is what was hashed.

    safetensors' load_file maps it into memory: moments would change with the file until they are
    first written, long after its hash was right.
    """
    from safetensors.torch import load

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _altered(path.name)
    return load(content)


def _altered(name: str) -> ValueError:
    return ValueError(f"{name} is damaged (its SHA-256 differs)")


def _publish(temporary: Path, final: Path) -> None:
    """Rename so that it survives a power cut: sync files, then their folder, then its parent."""
    for path in [*temporary.iterdir(), temporary]:
        sync(path)
    if final.exists():  # damaged, and trained again from an older one
        shutil.rmtree(final)
    temporary.rename(final)
    sync(final.parent)


def _checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    numbered = (p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdecimal())
    return sorted(numbered, key=_step_of)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove_old(run_dir: Path, keep: int, kept: Collection[int]) -> None:
    for path in _checkpoints(run_dir / "checkpoints")[:-keep]:
        if _step_of(path) not in kept:
            shutil.rmtree(path)
    tidy(run_dir)


def tidy(run_dir: Path) -> None:
    """Remove unfinished checkpoints of processes that were killed; no other may train now."""
    for path in (run_dir / "checkpoints").glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _own_sha256(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest's content: a flipped digit is valid JSON, too."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
