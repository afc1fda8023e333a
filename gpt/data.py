"""Text -> token files -> batches of (idx, targets): tokenised once, kept by content, read as memory maps.

Shapes: B = batch_size, T = block_size, R = rows of the validation set. The folder of a prepared text is
nanoGPT's layout (train.bin, val.bin, meta.pkl), so that nanoGPT's own train.py can use it as its data set.
Knows nothing of models; where text comes from is gpt.corpus's business.
"""

import hashlib
import itertools
import json
import os
import pickle
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from gpt import corpus, tokenizer
from gpt.config import DataConfig
from gpt.corpus import Corpus, Progress
from gpt.errors import InputError

FORMAT_VERSION = 1  # of the token folder; a new one prepares every text again
PADDING = -1  # target of a position that is no token; torch's losses ignore it when told to
STORIES_AT_ONCE = 8_192  # tokenised together: enough for every core, little memory

Tokens = npt.NDArray[np.uint16]


class Meta(BaseModel):
    """What a folder of tokens holds: the contents of its meta.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    fingerprint: str  # of the text of both splits and of the tokenizer
    kind: corpus.Kind
    name: str  # of the source: a hub name, a path, the built-in corpus
    notice: str | None  # what every reader of a result must be told
    tokenizer: str  # "gpt2", "bpe-2048"
    vocab_size: int
    train_stories: int
    train_tokens: int
    train_bytes: int  # of UTF-8, without <|endoftext|>
    validation_stories: int
    validation_tokens: int
    validation_bytes: int
    text_sha256: str


@dataclass(frozen=True)
class ValidationSet:
    """A fixed set of whole stories, cut into rows.

    A story's first input is <|endoftext|> and its last target too. It is cut into rows of T: a row after the
    first sees nothing of the rows before, so that the floor is exact only for stories of one row.
    """

    idx: Tensor  # (R, T) int64
    targets: Tensor  # (R, T) int64, PADDING behind the end of a story
    story: Tensor  # (R,) int64, the story that a row belongs to
    text_bytes: int  # UTF-8 bytes of these stories
    floor_nats_per_token: float | None  # the entropy that no model can beat, where known


class TokenData:
    """A prepared text: token files in a folder, and what they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = Meta.model_validate_json((folder / "meta.json").read_bytes())
        self.tokenizer_path = folder / "tokenizer.json"
        self.train: Tokens = np.memmap(folder / "train.bin", dtype=np.uint16, mode="r")

    def encoding(self) -> tiktoken.Encoding:
        """The encoding that made these tokens."""
        return tokenizer.load(self.tokenizer_path)

    def require(self, block_size: int) -> None:
        """Check that a training window fits.

        Raises:
            InputError: the training text has no more than block_size tokens.
        """
        if self.meta.train_tokens <= block_size:
            raise InputError(
                f"the training text of {self.meta.name} must be longer than one block, but has "
                f"{self.meta.train_tokens} tokens and block_size is {block_size}; "
                f"choose a smaller block_size or give more text."
            )

    def validation(self, block_size: int, eval_tokens: int) -> ValidationSet:
        """The first validation stories, whole, until they give at least eval_tokens targets."""
        tokens = np.memmap(self.folder / "val.bin", dtype=np.uint16, mode="r")
        ends = np.flatnonzero(tokens == self.meta.vocab_size - 1) + 1  # one past each story
        count = min(int(np.searchsorted(ends, eval_tokens)) + 1, len(ends))
        text_bytes = int(np.load(self.folder / "val_bytes.npy")[:count].sum())
        nats = self.folder / "val_nats.npy"
        floor = float(np.load(nats)[:count].sum() / ends[count - 1]) if nats.exists() else None
        idx, targets, story = _rows(tokens, ends[:count], block_size)
        return ValidationSet(idx, targets, story, text_bytes, floor)


class Batches:
    """Seeded batches of (idx, targets), each (B, T) int64: random windows of the stream, as in nanoGPT.

    Args:
        tokens: The training stream, longer than block_size.
        block_size: T.
        batch_size: B.
        seed: Of the windows' places.
    """

    def __init__(self, tokens: Tokens, block_size: int, batch_size: int, seed: int) -> None:
        self._tokens = tokens
        self._batch_size = batch_size
        self._window = np.arange(block_size + 1)
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch; a target is the token after its input."""
        starts = self._rng.integers(
            len(self._tokens) - len(self._window) + 1, size=self._batch_size
        )
        windows = self._tokens[starts[:, None] + self._window].astype(np.int64)  # (B, T + 1)
        both = torch.from_numpy(windows)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as JSON can hold it."""
        return dict(self._rng.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where state_dict() was taken."""
        self._rng.bit_generator.state = state


def prepare(data: DataConfig, progress: Progress = lambda message: None) -> TokenData:
    """The tokens of a configuration's text, from the cache or made now.

    Safe when several processes ask at once: one makes them, the others wait. Killed half-way, it leaves
    nothing that would be used.

    Args:
        data: With a fingerprint, exactly those tokens: the source is read only where they are missing.
        progress: Called with a line for whatever takes long.

    Raises:
        InputError: the source or the tokenizer cannot be had, the text does not suffice, the cache cannot
            be written, or the text is not the one of data.fingerprint.
    """
    if data.fingerprint and (ready := _open(data.fingerprint)):
        return ready
    key = _source_key(data)
    try:
        with _lock(key, progress):
            ready = _indexed(key) or _prepare_now(data, key, progress)
    except OSError as error:
        raise InputError(
            f"the folder for tokens {cache_folder()} must be writable, but {error.strerror}; "
            f"set SQUEN_SWEEP_CACHE to another one."
        ) from None
    if data.fingerprint and ready.meta.fingerprint != data.fingerprint:
        raise InputError(
            f"the text or the tokenizer changed: fingerprint {data.fingerprint} was asked for, but "
            f"{ready.meta.name} with {ready.meta.tokenizer} has {ready.meta.fingerprint}; "
            f"give the old text again, or start a study under another name."
        )
    return ready


def cache_folder() -> Path:
    """Where prepared tokens live: $SQUEN_SWEEP_CACHE or ~/.cache/squen-sweep."""
    chosen = os.environ.get("SQUEN_SWEEP_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "squen-sweep"


def _source_key(data: DataConfig) -> str:
    """What names a text and a tokenizer without reading the text."""
    source = corpus.identity(data)
    settings = [FORMAT_VERSION, source, data.tokenizer, data.bpe_vocab_size]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _lock(key: str, progress: Progress) -> Iterator[None]:
    """Hold the right to prepare this source; a killed holder loses it at once."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{key}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        progress("waiting for another process that prepares the same text")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _index_file(key: str) -> Path:
    return cache_folder() / "index" / f"{key}.json"


def _indexed(key: str) -> TokenData | None:
    """The tokens that this source gave last time, if they are still there."""
    try:
        record = json.loads(_index_file(key).read_bytes())
        return _open(record["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open(fingerprint: str) -> TokenData | None:
    """The cached tokens of a fingerprint; None where they are missing or not whole."""
    if not re.fullmatch("[0-9a-f]{16}", fingerprint):
        raise InputError(f"fingerprint must be 16 hexadecimal digits, but got {fingerprint!r}.")
    folder = cache_folder() / "tokens" / fingerprint
    try:
        data = TokenData(folder)
        meta = data.meta
        sizes = {"train.bin": meta.train_tokens, "val.bin": meta.validation_tokens}
        whole = all((folder / name).stat().st_size == 2 * n for name, n in sizes.items())
    except (OSError, ValidationError):
        return None
    return data if whole and meta.format_version == FORMAT_VERSION else None


def _prepare_now(data: DataConfig, key: str, progress: Progress) -> TokenData:
    """Read, tokenise and store a source; the text may turn out to be known already."""
    text = corpus.read_corpus(data, progress)
    encoding = _encoding(data, text, progress)
    text_sha256 = _text_digest(text)
    settings = f"{FORMAT_VERSION} {text_sha256} {tokenizer.digest(encoding)}"
    fingerprint = hashlib.sha256(settings.encode()).hexdigest()[:16]
    if _open(fingerprint) is None:
        _store(text, encoding, fingerprint, text_sha256, progress)
    record = json.dumps({"fingerprint": fingerprint, "source": text.name})
    _write_atomically(_index_file(key), record.encode())
    ready = _open(fingerprint)
    if ready is None:
        raise OSError("what was just written cannot be read back")
    return ready


def _encoding(data: DataConfig, text: Corpus, progress: Progress) -> tiktoken.Encoding:
    if data.tokenizer == "gpt2" or data.bpe_vocab_size is None:
        return tokenizer.gpt2()
    progress(f"training a byte-level BPE of {data.bpe_vocab_size:,} tokens")
    return tokenizer.train_bpe(text.train, data.bpe_vocab_size)


def _text_digest(text: Corpus) -> str:
    """SHA-256 of both splits; lengths keep the borders of stories."""
    sha = hashlib.sha256()
    for stories in (text.train, text.validation):
        sha.update(len(stories).to_bytes(8, "little"))
        for story in stories:
            content = story.encode()
            sha.update(len(content).to_bytes(8, "little") + content)
    return sha.hexdigest()


def _store(
    text: Corpus,
    encoding: tiktoken.Encoding,
    fingerprint: str,
    text_sha256: str,
    progress: Progress,
) -> None:
    """Write a folder of tokens beside its place, then rename it there: it is whole or absent."""
    place = cache_folder() / "tokens" / fingerprint
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        _write_folder(temporary, text, encoding, fingerprint, text_sha256, progress)
        if place.exists():  # not whole, or it would have been used
            shutil.rmtree(place)
        temporary.rename(place)
        _sync(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_folder(
    folder: Path,
    text: Corpus,
    encoding: tiktoken.Encoding,
    fingerprint: str,
    text_sha256: str,
    progress: Progress,
) -> None:
    """All files of a folder of tokens, on the disk when this returns."""
    train_tokens = _write_tokens(folder / "train.bin", text.train, encoding, progress)
    validation_tokens = _write_tokens(folder / "val.bin", text.validation, encoding, progress)
    validation_bytes = np.array([len(story.encode()) for story in text.validation])
    meta = Meta(
        format_version=FORMAT_VERSION,
        fingerprint=fingerprint,
        kind=text.kind,
        name=text.name,
        notice=text.notice,
        tokenizer=encoding.name,
        vocab_size=encoding.n_vocab,
        train_stories=len(text.train),
        train_tokens=train_tokens,
        train_bytes=sum(len(story.encode()) for story in text.train),
        validation_stories=len(text.validation),
        validation_tokens=validation_tokens,
        validation_bytes=int(validation_bytes.sum()),
        text_sha256=text_sha256,
    )
    np.save(folder / "val_bytes.npy", validation_bytes)
    if text.validation_nats is not None:
        np.save(folder / "val_nats.npy", np.array(text.validation_nats))
    tokenizer.save(encoding, folder / "tokenizer.json")
    # nanoGPT reads the vocabulary's size from a pickle; nothing here ever loads one
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": encoding.n_vocab}))
    (folder / "meta.json").write_text(meta.model_dump_json(indent=2), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _write_tokens(
    path: Path, stories: list[str], encoding: tiktoken.Encoding, progress: Progress
) -> int:
    """Write stories as uint16, each followed by <|endoftext|>; returns how many tokens that is."""
    end = [tokenizer.end_of_text(encoding)]
    written = 0
    told = time.monotonic()
    with path.open("wb") as file:
        for first in range(0, len(stories), STORIES_AT_ONCE):
            if time.monotonic() - told > 2:  # seconds
                progress(f"tokenising: {first:,} of {len(stories):,} stories")
                told = time.monotonic()
            encoded = encoding.encode_ordinary_batch(
                stories[first : first + STORIES_AT_ONCE], num_threads=os.cpu_count() or 1
            )
            ids = itertools.chain.from_iterable(story + end for story in encoded)
            tokens = np.fromiter(ids, dtype=np.uint16)
            file.write(tokens.tobytes())
            written += len(tokens)
    return written


def _rows(
    tokens: Tokens, ends: npt.NDArray[np.int64], block_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the stories that end before `ends` into rows (R, T) of inputs, targets, and their story (R,)."""
    idx_rows, target_rows, owners = [], [], []
    starts = [0, *ends[:-1]]
    for story, (start, end) in enumerate(zip(starts, ends, strict=True)):
        targets = tokens[start:end].astype(np.int64)  # the story and its <|endoftext|>
        inputs = np.concatenate([targets[-1:], targets[:-1]])
        n_rows = -(-len(targets) // block_size)
        shape, pad = (n_rows, block_size), (0, n_rows * block_size - len(targets))
        idx_rows.append(np.pad(inputs, pad, constant_values=targets[-1]).reshape(shape))
        target_rows.append(np.pad(targets, pad, constant_values=PADDING).reshape(shape))
        owners.append(np.full(n_rows, story))
    stacked = (np.concatenate(rows) for rows in (idx_rows, target_rows, owners))
    idx, targets_, story_ = (torch.from_numpy(rows) for rows in stacked)
    return idx, targets_, story_


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
