"""Backends: where a trial runs. Add one by adding a class like LocalBackend and an entry."""

from collections.abc import Sequence

from gpt.errors import InputError
from sweep.backends.base import ANY, Backend, Resources
from sweep.backends.local import LocalBackend
from sweep.backends.ray import RayBackend
from sweep.backends.slurm import SlurmBackend

BACKENDS: dict[str, type[LocalBackend] | type[SlurmBackend] | type[RayBackend]] = {
    "local": LocalBackend,
    "slurm": SlurmBackend,
    "ray": RayBackend,
}


def make_backend(
    name: str,
    device: str,
    workers: int | None,
    sbatch: Sequence[str] = (),
    ray_address: str | None = None,
    resources: Resources = ANY,
) -> Backend:
    """Make a backend; it is not checked yet.

    Args:
        name: A key of BACKENDS.
        device: "auto", "cpu" or "cuda"; on this machine also "cuda:N" or "mps".
        workers: Jobs at a time; None chooses.
        sbatch: Arguments for SLURM.
        ray_address: Of a Ray cluster; None starts one on this machine.
        resources: For each trial.

    Raises:
        InputError: there is no such backend, it cannot have such a device, `workers` is below 1, or
            an option is another backend's.
    """
    if name not in BACKENDS:
        raise InputError(f"--backend must be one of {', '.join(BACKENDS)}, but got {name!r}.")
    if name != "local" and device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--device must be auto, cpu or cuda with --backend {name}, which chooses the GPU "
            f"itself, but got {device!r}."
        )
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, but got {workers}.")
    given = {"slurm": tuple(sbatch), "ray": () if ray_address is None else (ray_address,)}
    for other, option in (("slurm", "--sbatch"), ("ray", "--ray-address")):
        if given[other] and name != other:
            raise InputError(f"{option} must come with --backend {other}, but got it without.")
    return BACKENDS[name](device, workers, given.get(name, ()), resources)
