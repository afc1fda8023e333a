"""On real stories, the link of squentropy mends most of what softmax makes of its logits."""

from pathlib import Path

from gpt.config import DataConfig, TrainConfig
from gpt.train import train

SIZES = {
    "vocab_size": 1024,
    "block_size": 64,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 32,
    "batch_size": 16,
    "max_steps": 250,
    "eval_interval": 250,
    "warmup_steps": 20,
    "learning_rate": 1e-2,
    "eval_tokens": 4000,
}


def test_squentropys_link_beats_softmax_and_one_temperature_on_real_stories(
    tmp_path: Path, cache: Path, shared_data: Path
):
    stories = (shared_data / "tinystories" / "train.txt").read_text()[:1_500_000]
    (tmp_path / "stories.txt").write_text(stories)
    data = DataConfig(source=str(tmp_path / "stories.txt"), bpe_vocab_size=1024)
    (e,) = train(TrainConfig(data=data, loss="squentropy", **SIZES))
    assert e.temperature_perplexity is not None
    assert e.link_perplexity < 0.95 * e.temperature_perplexity
    assert e.temperature_perplexity < e.perplexity
