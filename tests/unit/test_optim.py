"""Optimisers against torch's own, schedules by hand, which parameters decay, state that travels."""

import math
from collections.abc import Callable

import pytest
import torch

from gpt.config import DataConfig, TrainConfig, choices
from gpt.errors import InputError
from gpt.model import GPT
from gpt.optim import OPTIMIZERS, SCHEDULES, check_installed
from gpt.optim.state import load_optimizer_state, optimizer_state
from gpt.trainer import learning_rate_at, make_optimizers, set_learning_rate
from sweep.study.spec import StudySpec
from sweep.trainers.gpt import GPTTrainer

CONFIG = TrainConfig(
    vocab_size=11, n_layer=2, n_head=1, n_embd=4, block_size=4, bias=True,
    learning_rate=1.0, min_lr_ratio=0.1, warmup_steps=4, max_steps=104,
)  # fmt: skip
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def config(**changes) -> TrainConfig:
    return TrainConfig.model_validate(CONFIG.model_dump() | changes)


def model_of(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(CONFIG)


def steps(model: GPT, optimizers: list[torch.optim.Optimizer], count: int, first: int = 0) -> None:
    """Make steps from random gradients, the same ones for the same numbers."""
    for number in range(first, first + count):
        torch.manual_seed(number)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for optimizer in optimizers:
            optimizer.step()


# --- schedules -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),  # after 4 steps of warm-up, 100 from 1.0 down to 0.1
    [
        ("cosine", {}, {0: 0.2, 3: 0.8, 4: 1.0, 29: 0.868198, 54: 0.55, 104: 0.1}),
        ("linear", {}, {0: 0.2, 3: 0.8, 4: 1.0, 29: 0.775, 54: 0.55, 104: 0.1}),
        ("wsd", {}, {0: 0.2, 3: 0.8, 4: 1.0, 54: 1.0, 84: 1.0, 94: 0.55, 104: 0.1}),
        ("wsd", {"decay_ratio": 0.5}, {4: 1.0, 54: 1.0, 79: 0.55, 104: 0.1}),
        ("constant", {}, {0: 0.2, 3: 0.8, 4: 1.0, 54: 1.0, 104: 1.0}),
    ],
)
def test_learning_rate_warms_up_linearly_then_follows_the_schedule(
    schedule: str, options: dict[str, float], expected: dict[int, float]
):
    run = config(schedule=schedule, schedule_options=options)
    found = {step: learning_rate_at(step, run) for step in expected}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_as_long_as_the_run_never_divides_by_zero(schedule: str):
    run = config(schedule=schedule, warmup_steps=104)
    assert learning_rate_at(103, run) == pytest.approx(104 / 105)


def test_a_schedule_of_nanogpt_is_its_formula_digit_for_digit():
    for step in range(4, 104):
        coefficient = 0.5 * (1.0 + math.cos(math.pi * ((step - 4) / 100)))
        assert learning_rate_at(step, CONFIG) == 0.1 + coefficient * (1.0 - 0.1)


# --- optimisers ------------------------------------------------------------------------------


@every_optimizer
def test_every_parameter_is_updated_by_one_group_alone(name: str):
    model = model_of()
    optimizers = make_optimizers(model, config(optimizer=name))
    updated = [p for one in optimizers for group in one.param_groups for p in group["params"]]
    assert sorted(map(id, updated)) == sorted(map(id, model.parameters()))


@every_optimizer
def test_only_matrices_and_embeddings_decay(name: str):
    for optimizer in make_optimizers(model_of(), config(optimizer=name, weight_decay=0.3)):
        for group in optimizer.param_groups:
            decays = {parameter.dim() >= 2 for parameter in group["params"]}
            assert decays == {group["weight_decay"] == 0.3}
            assert group["weight_decay"] in (0.3, 0.0)


def torch_adamw(model: GPT, parameters: Callable[[str, torch.Tensor], bool]):
    mine = [(n, p) for n, p in model.named_parameters() if parameters(n, p)]
    return torch.optim.AdamW(
        [
            {"params": [p for _, p in mine if p.dim() == 2], "weight_decay": 0.1},
            {"params": [p for _, p in mine if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=0.02,
        betas=(0.9, 0.95),
    )


def is_matrix(name: str, parameter: torch.Tensor) -> bool:
    return parameter.dim() == 2 and name.startswith("transformer.h.")


def test_adamw_steps_as_torchs_adamw():
    ours, theirs = model_of(), model_of()
    steps(ours, make_optimizers(ours, config(learning_rate=0.02)), 3)
    steps(theirs, [torch_adamw(theirs, lambda name, parameter: True)], 3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_muon_steps_matrices_of_blocks_as_torchs_muon_and_the_rest_as_adamw():
    ours, theirs = model_of(), model_of()
    options = {"momentum": 0.9, "matrix_lr_ratio": 2.0}
    optimizers = make_optimizers(ours, config(optimizer="muon", optimizer_options=options))
    set_learning_rate(optimizers, 0.02)
    steps(ours, optimizers, 3)
    matrices = [p for n, p in theirs.named_parameters() if is_matrix(n, p)]
    assert len(matrices) == 2 * 4  # c_attn, c_proj, c_fc and c_proj of each block
    muon = torch.optim.Muon(
        matrices, lr=0.04, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    steps(theirs, [muon, torch_adamw(theirs, lambda n, p: not is_matrix(n, p))], 3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_muons_steps_are_about_as_large_as_adamws():
    torch.manual_seed(0)
    wide = config(optimizer="muon", n_embd=64, weight_decay=0.0, learning_rate=0.01)
    model = GPT(wide)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    steps(model, make_optimizers(model, wide), 1)
    for name, parameter in model.named_parameters():
        if is_matrix(name, parameter):  # orthogonal, times 0.2 sqrt(max(rows, columns))
            size = (parameter - before[name]).square().mean().sqrt().item()
            assert size == pytest.approx(0.2 * 0.01, rel=0.25)


RATES = {"adamw": 1e-2, "muon": 1e-2, "sgd": 0.3, "lion": 2e-3, "adafactor": 0.3}


@every_optimizer
def test_an_optimiser_learns_a_batch_by_heart(name: str):
    run = config(optimizer=name, learning_rate=RATES[name], n_embd=16, init_std=0.2)
    torch.manual_seed(0)
    model = GPT(run)
    idx = torch.randint(11, (8, 5))
    optimizers = make_optimizers(model, run)
    losses = []
    for _ in range(40):
        logits = model.logits(model(idx[:, :-1])).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, idx[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.0
    assert losses[-1] < losses[0] - 0.8


@pytest.mark.parametrize(
    ("name", "earlier_version"), [*((name, False) for name in OPTIMIZERS), ("adamw", True)]
)
def test_steps_go_on_from_a_saved_state_bit_for_bit(name: str, earlier_version: bool):
    run = config(optimizer=name, learning_rate=0.01)
    undisturbed = model_of()
    steps(undisturbed, make_optimizers(undisturbed, run), 5)
    first = model_of()
    optimizers = make_optimizers(first, run)
    steps(first, optimizers, 3)
    tensors, numbers = optimizer_state(optimizers, first.named_parameters())
    if earlier_version:  # whose checkpoints hold tensors only
        numbers = {}
    second = model_of(seed=1)
    second.load_state_dict(first.state_dict())
    fresh = make_optimizers(second, run)
    load_optimizer_state(fresh, second.named_parameters(), tensors, numbers)
    steps(second, fresh, 2, first=3)
    for a, b in zip(undisturbed.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_numbers_that_an_optimiser_counts_in_a_group_are_part_of_its_state():
    run, model = config(optimizer="lion"), model_of()
    optimizers = make_optimizers(model, run)
    steps(model, optimizers, 3)
    _, numbers = optimizer_state(optimizers, model.named_parameters())
    fresh = make_optimizers(model, run)
    load_optimizer_state(fresh, model.named_parameters(), {}, numbers)
    assert [group["step"] for group in fresh[0].param_groups] == [3, 3]


def test_an_optimiser_of_a_package_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("gpt.optim.optimizers.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"lion needs .*pip install 'squen-sweep\[lion\]'"):
        check_installed("lion")
    check_installed("adamw")


def test_a_study_with_such_an_optimiser_is_refused_before_its_text_is_read(monkeypatch):
    monkeypatch.setattr("gpt.optim.optimizers.find_spec", lambda name: None)
    search = {"optimizer": {"choices": ["adamw", "lion"]}}
    spec = StudySpec.model_validate({"name": "one", "search": search})
    with pytest.raises(InputError, match="lion needs pytorch_optimizer"):
        GPTTrainer(DataConfig(source="nowhere.txt")).check(spec, print)


# --- options of losses, optimisers and schedules ---------------------------------------------


def test_an_option_belongs_to_one_field_and_has_one_range_there():
    fields_of: dict[str, set[str]] = {}
    ranges_of: dict[str, set[tuple[float, float, bool]]] = {}
    for field, known in choices().items():
        for choice in known.values():
            for name, option in choice.options.items():
                fields_of.setdefault(name, set()).add(field)
                ranges_of.setdefault(name, set()).add((option.low, option.high, option.log))
                assert option.fault(option.default) is None
                assert option.fault(option.low) is None
                assert option.fault(option.high) is None
    assert not fields_of.keys() & TrainConfig.model_fields.keys()
    assert {name for name, fields in fields_of.items() if len(fields) > 1} == set()
    assert {name for name, ranges in ranges_of.items() if len(ranges) > 1} == set()
