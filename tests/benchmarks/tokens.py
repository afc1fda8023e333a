"""A folder of made-up tokens, for benchmarks where only their number and frequencies matter."""

import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gpt.config import DataConfig
from gpt.data.token_files import FORMAT_VERSION, Meta

FINGERPRINT = "0123456789abcdef"
STORY, STORIES = 200, {"train": 2000, "val": 20}


@contextmanager
def made_up(vocab_size: int) -> Iterator[DataConfig]:
    """Data whose tokens are as frequent as Zipf's law has it; here and in processes started here.

    The cache of tokens is a temporary one meanwhile.
    """
    before = os.environ.get("SQUEN_SWEEP_CACHE")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SQUEN_SWEEP_CACHE"] = cache
        try:
            _write(Path(cache) / "tokens" / FINGERPRINT, vocab_size)
            yield DataConfig(source="built-in", fingerprint=FINGERPRINT)
        finally:
            del os.environ["SQUEN_SWEEP_CACHE"]
            if before is not None:
                os.environ["SQUEN_SWEEP_CACHE"] = before


def _write(folder: Path, vocab_size: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    share = 1 / np.arange(2, vocab_size + 1)
    for split, stories in STORIES.items():
        ids = rng.choice(vocab_size - 1, size=(stories, STORY), p=share / share.sum())
        ids[:, -1] = vocab_size - 1  # <|endoftext|>
        (folder / f"{split}.bin").write_bytes(ids.astype(np.uint16).tobytes())
    np.save(folder / "val_bytes.npy", np.full(STORIES["val"], 4 * STORY))
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))
    (folder / "tokenizer.json").write_text("{}")
    meta = Meta(
        format_version=FORMAT_VERSION,
        fingerprint=FINGERPRINT,
        kind="files",
        name="made-up tokens",
        notice=None,
        tokenizer="none",
        vocab_size=vocab_size,
        train_stories=STORIES["train"],
        train_tokens=STORIES["train"] * STORY,
        train_bytes=4 * STORIES["train"] * STORY,
        validation_stories=STORIES["val"],
        validation_tokens=STORIES["val"] * STORY,
        validation_bytes=4 * STORIES["val"] * STORY,
        text_sha256="0" * 64,
        file_sizes={file.name: file.stat().st_size for file in folder.iterdir()},
    )
    (folder / "meta.json").write_text(meta.model_dump_json())
