"""The [resources] of a study, on every backend: slots, sbatch's options, Ray's nodes, torchrun."""

from pathlib import Path

import pytest
from tiny_studies import STUDY

from gpt.config import DataConfig
from gpt.errors import InputError
from sweep.backends import make_backend
from sweep.backends.base import Resources
from sweep.backends.local import LocalBackend, available_cores, plan_slots
from sweep.backends.ray_cluster import places
from sweep.backends.slurm import SlurmBackend
from sweep.study.spec import ResourcesSpec
from sweep.study.toml_file import read_resources, read_study_file
from sweep.trainers.gpt import GPTTrainer


def study_with(folder: Path, table: str) -> str:
    values = {"max_steps": 4, "eval_interval": 2, "lowest": 1e-3, "highest": 1e-2}
    more = {"text": "text", "batch_size": 2, "baseline": 5e-3, "pruner": "none"}
    path = folder / "tiny.toml"
    path.write_text(f"{STUDY.format(**values, **more)}\n{table}")
    return str(path)


def test_a_study_says_what_each_trial_has_and_its_results_do_not_depend_on_it(tmp_path: Path):
    plain = read_study_file(study_with(tmp_path, ""), "cpu")
    path = study_with(tmp_path, "[resources]\ngpus = 0.5\ncpus = 4")
    spec = read_study_file(path, "cpu")
    assert spec.resources == read_resources(path) == ResourcesSpec(gpus=0.5, cpus=4)
    assert plain.resources == ResourcesSpec()
    assert spec.digest == plain.digest


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("resources.gpus = -1", "resources.gpus: must be 0, a share of one such as 0.5"),
        ("resources.gpus = 1.5", "a whole number up to 64, but got 1.5"),
        ("resources.gpus = 65", "but got 65"),
        ("resources.gpus = true", "but got True"),
        ('resources.gpus = "all"', "but got 'all'"),
        ("resources.gpus = nan", "but got nan"),
        ("resources.cpus = 0", "resources.cpus: input should be greater than or equal to 1"),
        ("resources.cpus = 2.5", "resources.cpus:"),
        ("resources.memory = 3", "resources.memory:"),
        ("resources = 3", "resources:"),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path: Path, table: str, words: str):
    path = study_with(tmp_path, "")
    text = Path(path).read_text()
    Path(path).write_text(f"{table}\n{text}")
    read_resources(path)  # leaves it to the next to say so
    with pytest.raises(InputError) as caught:
        read_study_file(path, "cpu")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_share_of_a_gpu_is_a_slot_for_each_of_those_who_share_it():
    slots = plan_slots("cuda", None, n_devices=2, resources=Resources(gpus=0.5, cpus=3))
    assert [slot.device for slot in slots] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert {slot.threads for slot in slots} == {3}
    assert len(plan_slots("cuda:1", None, n_devices=2, resources=Resources(gpus=1 / 3))) == 3


def test_several_gpus_are_seen_by_one_trial_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots = plan_slots("cuda", None, n_devices=5, resources=Resources(gpus=2))
    assert [(slot.visible, slot.processes) for slot in slots] == [("0,1", 2), ("2,3", 2)]
    assert {slot.device for slot in slots} == {"cuda"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,GPU-a,3,1")
    slots = plan_slots("cuda", None, n_devices=4, resources=Resources(gpus=2))
    assert [slot.visible for slot in slots] == ["7,GPU-a", "3,1"]


def test_cpus_are_threads_and_as_many_trials_as_fit():
    cores = available_cores()
    (slot,) = plan_slots("cpu", None, resources=Resources(gpus=0, cpus=cores))
    assert (slot.threads, slot.device) == (cores, "cpu")


def test_the_command_line_comes_before_the_study():
    assert Resources(gpus=2).gpus_on("cpu") == 0
    assert Resources(gpus=2).gpus_on("auto") == Resources(gpus=2).gpus_on("cuda") == 2
    assert Resources(gpus=0).gpus_on("cuda:1") == Resources().gpus_on("cuda") == 1
    assert Resources().gpus_on("auto") is None
    assert LocalBackend("auto", None, (), Resources(gpus=0)).kind() == "cpu"


def test_more_than_this_machine_has_is_one_line(monkeypatch: pytest.MonkeyPatch):
    cores = available_cores()
    with pytest.raises(InputError, match=rf"resources\.cpus must be at most the {cores} cores"):
        LocalBackend("cpu", None, (), Resources(cpus=cores + 1)).check()
    monkeypatch.setattr("sweep.backends.local.cuda_devices", lambda: 2)
    monkeypatch.setattr("gpt.system.device.check_device", lambda device: None)
    with pytest.raises(InputError, match=r"resources\.gpus must be at most the 2 GPUs"):
        LocalBackend("auto", None, (), Resources(gpus=4)).check()
    with pytest.raises(InputError, match=r"--workers must be at most 4"):
        LocalBackend("auto", 5, (), Resources(gpus=0.5)).check()
    with pytest.raises(InputError, match=r"--device must be cuda where resources\.gpus is 2"):
        LocalBackend("cuda:1", None, (), Resources(gpus=2)).check()


def test_slurm_is_asked_for_them_unless_sbatch_is():
    def slots(gpus: float | None, cpus: int | None, *arguments: str) -> tuple[list[str], object]:
        backend = SlurmBackend("auto", 1, arguments, Resources(gpus, cpus))
        return backend._arguments, backend.capacity()[0]

    asked, slot = slots(2, 6, "--time=1:00")
    assert asked == ["--gres=gpu:2", "--cpus-per-task=6", "--time=1:00"]
    assert (slot.device, slot.threads, slot.processes) == ("cuda", 6, 2)
    asked, slot = slots(2, 6, "--gres=gpu:a100:2", "-c 4")
    assert (asked, slot.threads) == (["--gres=gpu:a100:2", "-c 4"], 4)
    asked, slot = slots(None, None, "--partition=x")
    assert (asked, slot.device) == (["--partition=x"], "cpu")
    for words in (
        "--gres gpu:1",
        "--gres=tmp:5G,gpu:1",
        "--tres-per-task=gres/gpu:1",
        "--gpus-per-task 1",
        "--time=1:00 -G1",
    ):
        asked, slot = slots(1, None, *words.split())
        assert (asked, slot.device) == (words.split(), "cuda")
    for words in ("--gpu-bind=none", "--gres=tmp:5G --partition=gpu"):
        assert slots(None, None, *words.split())[1].device == "cpu"
    with pytest.raises(InputError, match=r"shares no GPU between jobs, but is 0\.5"):
        SlurmBackend("auto", 1, (), Resources(gpus=0.5)).check()


def test_a_node_of_ray_has_room_for_what_fits_each_gpu():
    node = {"CPU": 16.0, "GPU": 2.0}
    assert places(node, {"CPU": 1, "GPU": 0.5}) == 4
    assert places(node, {"CPU": 1, "GPU": 0.7}) == 2  # a trial is not torn between two
    assert places(node, {"CPU": 5, "GPU": 1}) == 2
    assert places(node, {"CPU": 5, "GPU": 0}) == 3
    assert places(node, {"CPU": 1, "GPU": 4}) == places({}, {"CPU": 1, "GPU": 0}) == 0


def test_several_gpus_are_trained_on_by_torchrun(tmp_path: Path):
    trainer = GPTTrainer(DataConfig())
    assert trainer.command(tmp_path)[1:] == ("-P", "-m", "gpt.train", str(tmp_path))
    launched = trainer.command(tmp_path, 4)[1:]
    line = f"-P -m torch.distributed.run --standalone --nproc-per-node 4 -m gpt.train {tmp_path}"
    assert " ".join(launched) == line


@pytest.mark.parametrize("name", ["slurm", "ray"])
@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:1"])
def test_a_cluster_takes_a_kind_of_device_alone(name: str, device: str):
    with pytest.raises(InputError, match=rf"--device .* cpu or cuda .*{name}.* got '{device}'"):
        make_backend(name, device, 1)
    assert make_backend("slurm", "cuda", 1).kind() == "cuda"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("local", {"sbatch": ("--time=3",)}, "--sbatch must come with --backend slurm"),
        ("ray", {"sbatch": ("--time=3",)}, "--sbatch must come with --backend slurm"),
        ("slurm", {"ray_address": "auto"}, "--ray-address must come with --backend ray"),
        ("condor", {}, "--backend must be one of local, slurm, ray"),
    ],
)
def test_an_option_of_another_backend_is_refused(name: str, options: dict[str, str], words: str):
    with pytest.raises(InputError, match=words):
        make_backend(name, "cpu", 1, **options)
