"""Storage, runs, machine and limits that every command that trains gives to the tuner."""

from dataclasses import dataclass, field
from pathlib import Path

from sweep.backends import make_backend
from sweep.backends.base import Backend, Resources
from sweep.study.paths import DEFAULT_STORAGE
from sweep.study.spec import ResourcesSpec
from sweep.tuner.limits import Limits


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Storage, runs, machine and limits of a call."""

    storage: str = DEFAULT_STORAGE  # URL or path of the database
    runs: Path = Path("runs")  # run directories go to runs/<study>/<trial number>
    backend: str = "local"  # a name in sweep.backends.BACKENDS
    device: str = "auto"  # "auto", "cpu", "cuda" or "cuda:N"
    workers: int | None = None  # trials at a time; None: as many as there are slots
    sbatch: tuple[str, ...] = ()  # arguments for SLURM
    ray_address: str | None = None  # of a Ray cluster; None starts one on this machine
    limits: Limits = field(default_factory=Limits)
    extend: bool = False  # let the study file extend the stored study
    taken_from: str | None = None  # study whose trials a new one takes over
    wait: bool = False  # for another process that runs this study, instead of being refused

    def make_backend(self, resources: ResourcesSpec) -> Backend:
        """Make the backend for a study's [resources]; it is not checked yet.

        Raises:
            InputError: there is no such backend, or an option is another backend's.
        """
        return make_backend(
            self.backend,
            self.device,
            self.workers,
            self.sbatch,
            self.ray_address,
            Resources(resources.gpus, resources.cpus),
        )
