"""A folder of tokens: stories as uint16 ids, each followed by <|endoftext|>, and their metadata.

The layout is nanoGPT's (train.bin, val.bin, meta.pkl), so that nanoGPT's own programs can use a
folder as their data set; meta.json, tokenizer.json, val_bytes.npy, val_ends.npy and val_nats.npy
are ours.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from gpt.data import nanogpt, tokenizer
from gpt.data.corpus import Corpus, Kind, Progress, percentage, throttled
from gpt.system.files import sync

if TYPE_CHECKING:
    import tiktoken

FORMAT_VERSION = 1  # of a folder; with another one, every text is prepared again
PIECE_TOKENS = 512  # of a document, as long as a few stories
STORIES_AT_ONCE = 8_192  # tokenised together: work for every core, little memory


class Meta(BaseModel):
    """Metadata of a folder, as in its meta.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    fingerprint: str  # of both splits and the tokenizer
    kind: Kind
    name: str  # of the source: a hub name, a path, "built-in story grammar"
    notice: str | None  # for every reader of a result
    tokenizer: str  # "gpt2", "bpe-2048"
    vocab_size: int
    train_stories: int
    train_tokens: int
    train_bytes: int  # of UTF-8, without <|endoftext|>
    validation_stories: int
    validation_tokens: int
    validation_bytes: int
    text_sha256: str  # of both splits
    file_sizes: dict[str, int]  # of every other file here, in bytes


class Identity(NamedTuple):
    """Digests that two preparations share if and only if they give the same tokens."""

    fingerprint: str
    text_sha256: str


def identify(text: Corpus, encoding: "tiktoken.Encoding") -> Identity:
    """Compute the digest of the stories, and that of the stories with their tokenizer."""
    sha = hashlib.sha256()
    for stories in (text.train, text.validation):
        sha.update(len(stories).to_bytes(8, "little"))
        for story in stories:
            content = story.encode()
            sha.update(len(content).to_bytes(8, "little") + content)
    text_sha256 = sha.hexdigest()
    # a grammar's text has a floor and a notice that a copy of it in a file has not
    built_in = text.kind == "built-in"
    document = " document" if text.is_document else ""  # it is evaluated piece by piece
    key = f"{FORMAT_VERSION} {built_in} {text_sha256} {tokenizer.digest(encoding)}{document}"
    return Identity(hashlib.sha256(key.encode()).hexdigest()[:16], text_sha256)


def write(
    folder: Path,
    text: Corpus,
    encoding: "tiktoken.Encoding",
    identity: Identity,
    progress: Progress,
) -> None:
    """Fill an empty folder; all of it is on the disk when this returns."""
    train_tokens = _write_tokens(folder / "train.bin", text.train, encoding, progress)
    validation_tokens = _write_tokens(folder / "val.bin", text.validation, encoding, progress)
    validation_bytes = np.array([len(story.encode()) for story in text.validation])
    if text.is_document:
        ends, validation_bytes = _pieces(folder / "val.bin", encoding)
        np.save(folder / "val_ends.npy", ends)
    np.save(folder / "val_bytes.npy", validation_bytes)
    if text.validation_nats is not None:
        np.save(folder / "val_nats.npy", np.array(text.validation_nats))
    tokenizer.write_encoding(encoding, folder / "tokenizer.json")
    if (content := nanogpt.meta_pickle(encoding)) is not None:
        (folder / nanogpt.META).write_bytes(content)
    meta = Meta(
        format_version=FORMAT_VERSION,
        fingerprint=identity.fingerprint,
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
        text_sha256=identity.text_sha256,
        file_sizes={file.name: file.stat().st_size for file in folder.iterdir()},
    )
    (folder / "meta.json").write_text(meta.model_dump_json(indent=2), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def read_meta(folder: Path) -> Meta | None:
    """Read a folder's metadata; None if it is missing, incomplete or of another version."""
    try:
        meta = Meta.model_validate_json((folder / "meta.json").read_bytes())
        sizes = meta.file_sizes.items()
        complete = all((folder / name).stat().st_size == size for name, size in sizes)
    except (OSError, ValidationError):
        return None
    return meta if complete and meta.format_version == FORMAT_VERSION else None


def _pieces(
    path: Path, encoding: "tiktoken.Encoding"
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut the tokens of a document into pieces: one past the end of each, and their bytes.

    A piece takes the place of a story where figures are summed up by stories: a document as long as
    a book would be evaluated in full each time, and would leave nothing to hold back.
    """
    tokens = np.fromfile(path, dtype=np.uint16)
    end = tokenizer.end_of_text(encoding)
    bytes_of = np.array([*(len(encoding.decode_single_token_bytes(i)) for i in range(end)), 0])
    ends = np.append(np.arange(PIECE_TOKENS, len(tokens) - 1, PIECE_TOKENS), len(tokens))
    starts = np.concatenate([[0], ends[:-1]])
    return ends, np.add.reduceat(bytes_of[tokens], starts)


def _write_tokens(
    path: Path, stories: list[str], encoding: "tiktoken.Encoding", progress: Progress
) -> int:
    """Write stories as uint16 ids, each followed by <|endoftext|>; return the number of ids."""
    end = np.array([tokenizer.end_of_text(encoding)])
    # as arrays: a list takes ten times the memory, which of one long document is a lot
    encode = partial(encoding.encode_to_numpy, disallowed_special=())
    show = throttled(progress)
    written = 0
    with path.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as threads:
        for first in range(0, len(stories), STORIES_AT_ONCE):
            share = percentage(first, len(stories))
            show(f"tokenising: {first:,} of {len(stories):,} stories{share}")
            some = stories[first : first + STORIES_AT_ONCE]
            parts = [part for story in threads.map(encode, some) for part in (story, end)]
            ids = np.concatenate(parts, dtype=np.uint16, casting="unsafe")
            file.write(ids.data)
            written += len(ids)
    return written
