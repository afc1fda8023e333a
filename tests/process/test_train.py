"""Training: what is measured, that it learns, that a resumed run is the same run bit for bit."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from invariants import wait_until
from tiny_runs import tiny_config, write_run, write_stories

from gpt import checkpoint
from gpt.data.dataset import prepare
from gpt.errors import BusyError, DataError, DivergedError, InputError
from gpt.events import Evaluation, Event, append_event, read_events
from gpt.model import GPT
from gpt.optim import OPTIMIZERS
from gpt.sample import load_model
from gpt.train import train, train_directory
from gpt.trainer import Trainer, branch_step
from sweep.backends.base import Job, Slot
from sweep.backends.local import LocalProcess


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


def figures(evaluation: Evaluation) -> tuple[float, ...]:
    """What must be equal between two equal runs: all that is no clock and no memory."""
    e = evaluation
    return (e.step, e.tokens, e.train_loss, e.cross_entropy, e.learning_rate, e.grad_norm)


def test_evaluations_come_on_the_grid_and_at_the_last_step(text: Path):
    config = tiny_config(text, max_steps=10, eval_interval=4)
    assert [e.step for e in train(config)] == [4, 8, 10]


def test_a_machine_without_a_compiler_trains_uncompiled_and_says_so(
    monkeypatch: pytest.MonkeyPatch, text: Path, tmp_path: Path
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    compiled = train(tiny_config(text, compile=True), note=said.append)
    assert list(map(figures, compiled)) == list(map(figures, train(tiny_config(text))))
    assert [line.partition(":")[0] for line in said] == ["trains uncompiled, which is slower"]


def test_the_same_seed_gives_the_same_figures_bit_for_bit(text: Path):
    config = tiny_config(text)
    assert list(map(figures, train(config))) == list(map(figures, train(config)))


def test_another_seed_gives_other_figures(text: Path):
    one, other = (next(train(tiny_config(text, seed=seed))) for seed in (1, 2))
    assert one.cross_entropy != other.cross_entropy


def test_what_the_caller_draws_between_evaluations_does_not_change_the_run(text: Path):
    config = tiny_config(text)
    undisturbed = list(map(figures, train(config)))
    disturbed = [(figures(e), torch.rand(3))[0] for e in train(config)]
    assert disturbed == undisturbed


def test_training_learns(text: Path):
    first, *_, last = train(tiny_config(text, max_steps=60, eval_interval=4))
    assert last.cross_entropy < first.cross_entropy - 0.5
    assert last.cross_entropy < math.log(280)


def test_perplexity_is_exp_of_cross_entropy_whatever_the_loss(text: Path):
    (e,) = train(tiny_config(text, loss="squentropy", max_steps=4))
    assert e.perplexity == math.exp(e.cross_entropy)
    assert e.train_loss > e.cross_entropy - 1.0  # the objective, with its squares


def test_an_evaluation_is_what_an_independent_pass_over_the_rows_gives(text: Path, tmp_path: Path):
    config = tiny_config(text, max_steps=4)
    (e,) = train(config, tmp_path / "run" if (tmp_path / "run").mkdir() is None else None)
    rows = prepare(config.data).validation(config.block_size, config.eval_tokens)
    model = GPT(config).eval()
    saved = checkpoint.load(tmp_path / "run")
    assert saved is not None
    model.load_state_dict(saved.model, strict=False)
    nats = 0.0
    with torch.no_grad():
        for idx, targets in zip(rows.idx, rows.targets, strict=True):
            log_p = model.logits(model(idx[None]))[0].double().log_softmax(-1)
            nats -= sum(log_p[t, y].item() for t, y in enumerate(targets.tolist()) if y >= 0)
    assert e.cross_entropy == pytest.approx(nats / int((rows.targets >= 0).sum()), rel=1e-6)
    assert e.bits_per_byte == pytest.approx(nats / math.log(2) / rows.text_bytes, rel=1e-6)


def test_tokens_count_the_whole_effective_batch(text: Path):
    config = tiny_config(text, max_steps=4, batch_size=2, gradient_accumulation_steps=3)
    (e,) = train(config)
    assert e.tokens == 4 * 2 * 3 * config.block_size


def test_two_micro_batches_make_the_step_of_one_batch_twice_as_large(text: Path):
    # the first step's gradient norm, before any weight has moved, from the same windows of text
    whole = tiny_config(text, dropout=0.0, batch_size=4, max_steps=1)
    halves = tiny_config(
        text, dropout=0.0, batch_size=2, gradient_accumulation_steps=2, max_steps=1
    )
    one, two = next(train(whole)), next(train(halves))
    assert one.train_loss == pytest.approx(two.train_loss, rel=1e-5)
    assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-4)


@pytest.mark.parametrize("stop_before_step", [3, 4, 7])
def test_a_stopped_run_continues_to_the_same_figures_bit_for_bit(
    text: Path, tmp_path: Path, stop_before_step: int
):
    config = tiny_config(text)
    undisturbed = list(map(figures, train(config)))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    asked = itertools.count()
    first = list(train(config, run_dir, stop=lambda: next(asked) == stop_before_step))
    torch.rand(5)
    second = list(train(config, run_dir))
    assert list(map(figures, first + second)) == undisturbed
    assert second[0].step > stop_before_step


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "adamw"])
def test_a_stopped_run_of_any_optimiser_continues_bit_for_bit(
    text: Path, tmp_path: Path, optimizer: str
):
    changes = {"optimizer": optimizer, "schedule": "wsd", "qk_norm": True, "activation": "relu2"}
    config = tiny_config(text, **changes)
    undisturbed = list(map(figures, train(config)))
    (tmp_path / "run").mkdir()
    asked = itertools.count()
    first = list(train(config, tmp_path / "run", stop=lambda: next(asked) == 5))
    second = list(train(config, tmp_path / "run"))
    assert list(map(figures, first + second)) == undisturbed


def first_step_without(curve: list[float], patience: int) -> int | None:
    """Count the evaluations after which the last `patience` had no new lowest value."""
    for count in range(1, len(curve) + 1):
        best = min(range(count), key=lambda index: curve[index])
        if count - 1 - best >= patience:
            return count
    return None


def test_a_run_out_of_patience_ends_as_done_with_the_best_and_the_last_checkpoint(
    text: Path, tmp_path: Path
):
    config = tiny_config(text, learning_rate=0.3, eval_interval=1, max_steps=60)
    whole = list(train(config))
    expected = first_step_without([e.cross_entropy for e in whole], 3)
    assert expected is not None
    assert 4 <= expected < 60

    run_dir = write_run(tmp_path / "run", config.model_copy(update={"patience": 3}))
    stopped = list(train_directory(run_dir))
    assert list(map(figures, stopped)) == list(map(figures, whole[:expected]))
    assert stopped[-1].temperature_perplexity is not None  # all metrics, as at a last step
    assert (run_dir / "stories.json").exists()
    assert read_events(run_dir)[0][-1]["event"] == "done"
    assert list(train_directory(run_dir)) == []

    kept = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    best = min(stopped, key=lambda e: e.cross_entropy)
    steps = {best.step, expected, branch_step(config)}  # the last, so that a longer run can begin
    assert kept == [f"step-{step:06d}" for step in sorted(filter(None, steps))]
    models = [load_model(run_dir, best=best).state_dict() for best in (True, False)]
    saved = [checkpoint.load(run_dir, step).model for step in (best.step, expected)]  # type: ignore[union-attr]
    for model, weights in zip(models, saved, strict=True):
        assert all(torch.equal(model[name], value) for name, value in weights.items())


def test_patience_goes_on_after_a_stop(text: Path, tmp_path: Path):
    config = tiny_config(text, learning_rate=0.3, eval_interval=1, max_steps=60, patience=3)
    whole = list(map(figures, train(config)))
    (tmp_path / "run").mkdir()
    asked = itertools.count()
    stop_before = len(whole) - 2  # between the best evaluation and the last
    first = list(train(config, tmp_path / "run", stop=lambda: next(asked) == stop_before))
    second = list(train(config, tmp_path / "run"))
    assert list(map(figures, first + second)) == whole
    assert len(first) == stop_before


def test_stories_on_the_way_change_nothing_else(text: Path, tmp_path: Path):
    config = tiny_config(text)
    plain = list(map(figures, train(config)))
    run_dir = write_run(tmp_path / "run", config.model_copy(update={"sample_interval": 8}))
    assert list(map(figures, train_directory(run_dir))) == plain
    notes = [e["message"] for e in read_events(run_dir)[0] if e["event"] == "note"]
    assert [note.partition(": Once upon a time")[0] for note in notes] == ["step 8", "step 12"]


def test_a_step_trains_with_the_weight_that_has_fallen_so_far(text: Path):
    config = tiny_config(text, loss="squentropy", loss_schedule="linear", max_steps=4, dropout=0.0)
    run = Trainer(config, prepare(config.data))
    run.step()
    before = run.batches.state_dict()
    fallen = run._backward()
    run.batches.load_state_dict(before)
    run.config = tiny_config(
        text, loss="squentropy", loss_options={"square_weight": 0.75}, max_steps=4, dropout=0.0
    )
    assert run._backward() == fallen


def test_a_weight_that_falls_to_zero_leaves_the_link_of_cross_entropy(text: Path):
    first, *_, last = train(tiny_config(text, loss="squentropy", loss_schedule="linear"))
    assert first.link_perplexity != pytest.approx(first.perplexity, rel=1e-4)
    assert last.link_perplexity == pytest.approx(last.perplexity, rel=1e-6)
    assert last.perplexity == math.exp(last.cross_entropy)


def test_a_run_without_checkpoint_at_the_break_repeats_from_the_last_evaluation(
    text: Path, tmp_path: Path
):
    config = tiny_config(text)
    undisturbed = list(map(figures, train(config)))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with closing(train(config, run_dir)) as evaluations:  # closed before the checkpoint of step 8
        assert [next(evaluations).step, next(evaluations).step] == [4, 8]
    assert list(map(figures, train(config, run_dir))) == undisturbed[1:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_layer": 2}, r"n_layer must be 1, .* step 5 was made, but config\.json has 2"),
        ({"loss": "focal"}, "loss must be 'cross_entropy', with which"),
        ({"batch_size": 8}, "tokens_per_step must be 64, with which"),
    ],
)
def test_a_run_whose_configuration_changed_is_not_continued(
    text: Path, tmp_path: Path, change: dict[str, object], says: str
):
    config = tiny_config(text)
    asked = itertools.count()
    list(train(config, tmp_path, stop=lambda: next(asked) == 5))
    with pytest.raises(DataError, match=says):
        list(train(tiny_config(text, **change), tmp_path))


def test_a_checkpoint_of_before_has_no_configuration_and_only_its_weights_are_compared(
    text: Path, tmp_path: Path
):
    asked = itertools.count()
    list(train(tiny_config(text), tmp_path, stop=lambda: next(asked) == 5))
    saved = checkpoint.load(tmp_path)
    assert saved is not None
    del saved.state["config"]
    for change in ({}, {"loss": "focal"}):
        Trainer(tiny_config(text, **change), prepare(tiny_config(text).data)).restore(saved)
    with pytest.raises(DataError, match=r"where transformer\.h\.1\.\S+ is \(.*not there in the ch"):
        Trainer(tiny_config(text, n_layer=2), prepare(tiny_config(text).data)).restore(saved)


def test_a_micro_batch_of_half_the_size_goes_on_with_the_same_run(text: Path, tmp_path: Path):
    asked = itertools.count()
    list(train(tiny_config(text), tmp_path, stop=lambda: next(asked) == 5))
    halved = tiny_config(text, batch_size=2, gradient_accumulation_steps=2)
    assert [e.step for e in train(halved, tmp_path)] == [8, 12]


def test_a_second_start_writes_the_tokenizer_only_where_it_is_not_whole(text: Path, tmp_path: Path):
    config, path = tiny_config(text), tmp_path / "tokenizer.json"
    list(train(config, tmp_path))
    before, content = path.stat(), path.read_bytes()
    list(train(config, tmp_path))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.write_bytes(content[:20])
    list(train(config, tmp_path))
    assert path.read_bytes() == content


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-10] + bytes([content[-10] ^ 1]) + content[-9:]


@pytest.mark.parametrize("damage", [zeroed, truncated, flipped])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_run_whose_checkpoints_are_all_damaged_starts_again_and_says_so(
    text: Path, tmp_path: Path, damage: Callable[[bytes], bytes], file: str
):
    config = tiny_config(text)
    undisturbed = list(map(figures, train(config)))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    asked = itertools.count()
    list(train(config, run_dir, stop=lambda: next(asked) == 9))
    for path in run_dir.glob(f"checkpoints/*/{file}"):
        path.write_bytes(damage(path.read_bytes()))
    notes: list[str] = []
    assert list(map(figures, train(config, run_dir, note=notes.append))) == undisturbed
    assert notes[0].startswith("starts again from step 0: no checkpoint is intact (step-000009: ")
    assert "step-000008: " in notes[0]


def test_a_run_passes_over_a_damaged_checkpoint_and_says_so(text: Path, tmp_path: Path):
    config = tiny_config(text)
    undisturbed = list(map(figures, train(config)))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    asked = itertools.count()
    list(train(config, run_dir, stop=lambda: next(asked) == 9))
    path = run_dir / "checkpoints" / "step-000009" / "model.safetensors"
    path.write_bytes(flipped(path.read_bytes()))
    notes: list[str] = []
    assert list(map(figures, train(config, run_dir, note=notes.append))) == undisturbed[2:]
    assert notes[0].startswith("skipped a damaged checkpoint: step-000009")
    assert notes[1] == "continues at step 8"


def test_a_finished_run_has_nothing_left_to_do_and_keeps_only_its_weights(
    text: Path, tmp_path: Path
):
    config, run_dir = tiny_config(text), tmp_path / "run"
    run_dir.mkdir()
    assert list(train(config, run_dir))
    assert list(train(config, run_dir)) == []
    kept = {path.name for path in run_dir.glob("checkpoints/*/*")}
    assert kept == {"model.safetensors", "state.json"}


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(text: Path):
    config = tiny_config(text, grad_clip=1e-3, dropout=0.0)
    run = Trainer(config, prepare(config.data))
    run.optimizers.clear()  # keeps the gradients to see
    run.step()
    assert run.counters.grad_norm > 1e-2  # before clipping
    squares = sum(p.grad.square().sum() for p in run.model.parameters() if p.grad is not None)
    assert math.sqrt(squares) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "lion"])  # adafactor's is bounded
def test_an_infinite_loss_ends_the_run_as_diverged_with_its_step(text: Path, optimizer: str):
    changes = {"learning_rate": 1e30, "warmup_steps": 0, "grad_clip": 0.0}
    config = tiny_config(text, optimizer=optimizer, **changes)
    with pytest.raises(DivergedError, match=r"training loss nan.*at learning rate") as caught:
        list(train(config))
    assert 1 <= caught.value.step < config.max_steps


def test_a_device_that_is_not_there_is_refused(text: Path):
    with pytest.raises(InputError, match="cuda:63 is not there"):
        next(train(tiny_config(text, device="cuda:63")))


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(text: Path):
    with pytest.raises(InputError, match="vocab_size must be the tokenizer's 280, but got 300"):
        next(train(tiny_config(text, vocab_size=300)))


def test_text_shorter_than_a_block_is_refused(text: Path):
    with pytest.raises(InputError, match="block_size"):
        next(train(tiny_config(text, block_size=100_000)))


def test_train_directory_logs_start_evaluations_and_done(text: Path, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", tiny_config(text))
    evaluations = list(train_directory(run_dir))
    events, _ = read_events(run_dir)
    assert [e["event"] for e in events] == ["start", *["evaluation"] * 3, "done"]
    assert events[2]["perplexity"] == evaluations[1].perplexity
    assert events[0]["pid"] == os.getpid()


def test_train_directory_logs_divergence(text: Path, tmp_path: Path):
    config = tiny_config(text, learning_rate=1e30, warmup_steps=0, grad_clip=0.0)
    run_dir = write_run(tmp_path / "run", config)
    with pytest.raises(DivergedError):
        list(train_directory(run_dir))
    events, _ = read_events(run_dir)
    assert (events[-1]["event"], events[-1]["outcome"]) == ("error", "diverged")


def test_two_trainers_of_one_directory_are_refused(text: Path, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", tiny_config(text))
    with closing(train_directory(run_dir)) as first:
        next(first)
        with pytest.raises(BusyError, match="one trainer"):
            next(train_directory(run_dir))


COMMAND = [sys.executable, "-m", "gpt.train"]
ROOT = Path(__file__).parents[2]


def start_process(run_dir: Path) -> LocalProcess:
    """A fork of one that has imported torch: what it trains is the same (test_forkserver.py)."""
    command = (*COMMAND, str(run_dir))
    return LocalProcess.start(Job(run_dir, command, Slot(0, "cpu", 1), "gpt.train"))


def evaluations(run_dir: Path) -> list[Event]:
    return [event for event in read_events(run_dir)[0] if event["event"] == "evaluation"]


def exit_code(process: LocalProcess) -> int | None:
    wait_until(lambda: not process.alive)
    return process.exit_code


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_was_ended_continues_to_the_same_figures(
    text: Path, tmp_path: Path, signum: signal.Signals
):
    config = tiny_config(text, max_steps=400, eval_interval=20)
    undisturbed = [figures(e) for e in train(config)]
    run_dir = write_run(tmp_path / "run", config)
    process = start_process(run_dir)
    wait_until(lambda: len(evaluations(run_dir)) >= 3)
    if signum == signal.SIGTERM:
        process.stop()
    else:
        process.kill()
    assert exit_code(process) == (0 if signum == signal.SIGTERM else -signal.SIGKILL)
    assert len(evaluations(run_dir)) < len(undisturbed)
    assert exit_code(start_process(run_dir)) == 0
    by_step = {e["step"]: e for e in evaluations(run_dir)}
    assert [(s, by_step[s]["cross_entropy"]) for s in sorted(by_step)] == [
        (f[0], f[3]) for f in undisturbed
    ]


def test_a_process_under_nohup_trains_on_when_its_terminal_closes(text: Path, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", tiny_config(text, max_steps=200))
    process = subprocess.Popen(
        ["nohup", *COMMAND, str(run_dir)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    wait_until(lambda: bool(evaluations(run_dir)))
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 0
    assert read_events(run_dir)[0][-1]["event"] == "done"


def test_bad_input_of_a_process_is_one_line_and_exit_code_2(tmp_path: Path):
    process = subprocess.run(
        [*COMMAND, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "config.json" in process.stderr


def test_config_json_with_an_unknown_key_names_it(text: Path, tmp_path: Path):
    values = json.loads(tiny_config(text).model_dump_json()) | {"n_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="n_layers: is not a known key"):
        next(train_directory(tmp_path))


def test_a_trainer_that_was_believed_dead_ends_without_a_word_once_another_has_started(text: Path):
    run_dir = write_run(text.parent / "run", tiny_config(text))
    evaluations = train_directory(run_dir)
    next(evaluations)
    append_event(run_dir, "start", pid=0, attempt=2)
    saved = checkpoint.load(run_dir)
    with pytest.raises(BusyError, match="later process"):
        next(evaluations)
    kinds = [event["event"] for event in read_events(run_dir)[0]]
    assert kinds == ["start", "evaluation", "start"]
    assert (checkpoint.load(run_dir) is None, saved) == (False, None)
