"""`train --scale`: shapes that divide, rules of the papers by hand, a memory that is checked."""

import pytest

from gpt.config import TrainConfig
from gpt.errors import InputError
from sweep.trainers.long_run.scale import (
    available_memory,
    changes_in_words,
    check_memory,
    read_scale,
    scaled,
)

TUNED = TrainConfig(
    vocab_size=1024, n_layer=2, n_embd=64, n_head=2, init_std=0.07, learning_rate=0.016,
    weight_decay=0.1, beta1=0.9, beta2=0.95, max_steps=400, warmup_steps=100, eval_interval=20,
)  # fmt: skip


def changed(scale: str, config: TrainConfig = TUNED) -> dict[str, object]:
    """The fields in which a scaled configuration differs."""
    new = scaled(config, read_scale(scale))
    names = TrainConfig.model_fields
    return {n: getattr(new, n) for n in names if getattr(new, n) != getattr(config, n)}


def test_the_shape_is_scaled_by_completep_with_the_tuned_one_as_its_base():
    assert changed("n_layer=12,n_embd=512") == {
        "n_layer": 12,
        "n_embd": 512,
        "n_head": 16,  # heads of 32, as they were tuned
        "parametrization": "completep",
        "base_n_layer": 2,
        "base_n_embd": 64,
        "base_n_head": 2,
    }


def test_more_steps_lower_the_decay_alone_and_keep_shares():
    assert changed("steps=6400") == {  # 16 times as many
        "max_steps": 6400,
        "weight_decay": pytest.approx(0.1 / 16),
        "warmup_steps": 1600,
        "eval_interval": 320,
    }


def test_weights_are_an_average_over_the_same_share_of_a_longer_run():
    new = scaled(TUNED, {"steps": 5000})
    share = [c.learning_rate * c.weight_decay * c.max_steps for c in (TUNED, new)]
    assert share[1] == pytest.approx(share[0])


def test_a_larger_batch_at_equal_steps_changes_nothing_else():
    assert changed("batch_size=64") == {"batch_size": 64}


def test_its_own_size_leaves_a_configuration_as_it_is():
    assert changed("n_layer=2,n_embd=64,steps=400,batch_size=16") == {}


def test_what_was_scaled_once_keeps_its_base():
    twice = scaled(scaled(TUNED, {"n_embd": 128}), {"n_embd": 512, "n_layer": 8})
    assert twice == scaled(TUNED, {"n_embd": 512, "n_layer": 8})


def test_heads_of_another_size_are_scaled_too():
    new = scaled(TUNED, {"n_embd": 256, "n_head": 2})
    assert (new.n_head, new.scaling.head_size, new.scaling.width) == (2, 4.0, 4.0)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("n_embd=100", "multiple of the size of a head, 32, but got 100; 96 and 128 are"),
        ("n_embd=64,n_head=3", "multiple of n_head, 3, but got 64; 63 and 66 are"),
        ("layers=3", "names of n_layer, n_embd, n_head, steps, batch_size, but got 'layers=3'"),
        ("n_layer", "but got 'n_layer'"),
        ("", "but got ''"),
        ("n_layer=0", "n_layer must be a whole number of at least 1, but got '0'"),
        ("n_layer=2.5", "n_layer must be a whole number of at least 1, but got '2.5'"),
        ("n_layer=2,n_layer=3", "must give n_layer once"),
        ("n_layer=\u0663", "n_layer must be a whole number"),
    ],
)
def test_a_scale_that_cannot_be_is_refused_in_a_line(scale: str, message: str):
    with pytest.raises(InputError, match=message) as raised:
        scaled(TUNED, read_scale(scale))
    assert "\n" not in str(raised.value)


def test_an_optimizer_of_which_no_scaling_is_known_keeps_its_shape():
    config = TUNED.model_copy(update={"optimizer": "sgd"})
    with pytest.raises(InputError, match="adamw or muon, but the configuration has sgd"):
        scaled(config, {"n_embd": 128})
    assert scaled(config, {"steps": 800}).max_steps == 800


def test_a_run_beyond_the_memory_is_refused_with_both_numbers():
    huge = scaled(TUNED, {"n_embd": 2**17, "n_layer": 100})
    with pytest.raises(InputError, match=r"needs about \d+\.\d GB where \d+\.\d GB are free"):
        check_memory(huge)


def test_a_run_within_the_memory_is_let_through_with_both_numbers():
    assert "GB that are free" in check_memory(TUNED)
    assert available_memory("cpu") > 10**8


def test_words_name_all_that_was_changed():
    new = scaled(TUNED, {"n_embd": 256, "n_layer": 4, "steps": 1600, "batch_size": 32})
    words = "\n".join(changes_in_words(TUNED, new))
    for part in (
        "n_layer 2 -> 4, n_embd 64 -> 256, n_head 2 -> 8",
        "learning rate x 0.25, the weight decay x 4, first weights x 0.5",
        "residual branches x 0.5, logits x 0.25",
        "max_steps 400 -> 1,600",
        "weight_decay 0.1 -> 0.025",
        "warmup_steps 100 -> 400",
        "batch_size 16 -> 32",
    ):
        assert part in words


def test_what_is_smaller_than_what_was_tuned_is_said_to_be_unchecked():
    words = changes_in_words(TUNED, scaled(TUNED, {"n_embd": 32}))
    assert any("nobody has checked" in line for line in words)
