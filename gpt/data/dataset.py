"""Training batches and the validation set: text tokenised once, cached, read as memory maps.

Shapes: B = batch_size, T = block_size, R = rows of the validation set, S stories. Text comes from
gpt.data.corpus; gpt.data.token_files writes the tokens.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from gpt.config import DataConfig
from gpt.data import corpus, hub, token_files, tokenizer
from gpt.data.cache import cache_folder, complete_or_absent, lock, tokens_folder
from gpt.data.corpus import Corpus, Progress, TextOrigin
from gpt.data.token_files import Meta
from gpt.errors import InputError, StorageError

if TYPE_CHECKING:
    import tiktoken

FAST_BPE_CHARS = 100_000  # a vocabulary is trained on so many in 0.05 s
PART_CHARS = 100_000  # a document is passed to the trainer of a vocabulary in such parts
PADDING = -1  # the target of a position after a story's end, ignored by every loss
_FINGERPRINT = "[0-9a-f]{16}"

Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class ValidationSet:
    """A fixed set of complete stories, cut into rows.

    A story's first input is <|endoftext|>, and so is its last target. A story longer than T is cut
    into several rows, and a row has no context from the one before; the floor is that of a model
    with the complete story as context. A document that is no sequence of stories is cut into
    pieces of equal length, which are stories here; a piece's first input is the token before it.
    """

    idx: Tensor  # (R, T) int64
    targets: Tensor  # (R, T) int64, PADDING after the end of a story
    story: Tensor  # (R,) int64, index of the row's story
    story_bytes: Tensor  # (S,) int64, UTF-8 bytes of each story
    floor_nats_per_token: float | None  # entropy, which no model can beat; None: unknown

    def part(self, rank: int, processes: int) -> "ValidationSet":
        """Return the rows that one process evaluates; the stories keep their indices.

        With fewer rows than processes, the last ones have the same row.
        """
        n, parts = len(self.idx), min(processes, len(self.idx))
        own = min(rank, parts - 1)
        rows = slice(n * own // parts, n * (own + 1) // parts)
        return replace(self, idx=self.idx[rows], targets=self.targets[rows], story=self.story[rows])

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of all stories."""
        return int(self.story_bytes.sum())


class TokenData:
    """A prepared text: a folder of token files, with its metadata.

    Args:
        folder: The token files. Equal texts share them, wherever they came from.
        meta: The folder's metadata, with the kind and the name of the text that was asked for.
        origin: Account of the reading of that text; None where only its tokens were looked up.
    """

    def __init__(self, folder: Path, meta: Meta, origin: TextOrigin | None = None) -> None:
        self.folder = folder
        self.meta = meta
        self.origin = origin
        self.tokenizer_path = folder / "tokenizer.json"
        self.train: Tokens = np.memmap(folder / "train.bin", dtype=np.uint16, mode="r")

    def encoding(self) -> "tiktoken.Encoding":
        """Load the tokenizer of these tokens."""
        return tokenizer.read_encoding(self.tokenizer_path)

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

    def validation(self, block_size: int, eval_tokens: int, skip_tokens: int = 0) -> ValidationSet:
        """Take validation stories until they have at least eval_tokens targets.

        Args:
            block_size: T.
            eval_tokens: Targets, rounded up to complete stories; fewer if the text ends.
            skip_tokens: Skip the stories that eval_tokens=skip_tokens takes; 0: none.

        Raises:
            InputError: nothing is left after those.
        """
        tokens = np.memmap(self.folder / "val.bin", dtype=np.uint16, mode="r")
        pieces = self.folder / "val_ends.npy"  # of a document
        end_of_text = self.meta.vocab_size - 1
        ends = np.load(pieces) if pieces.exists() else np.flatnonzero(tokens == end_of_text) + 1
        first = int(np.searchsorted(ends, skip_tokens)) + 1 if skip_tokens else 0
        if first >= len(ends):
            raise InputError(
                f"the validation text of {self.meta.name} must hold stories after the first "
                f"{skip_tokens} tokens, but it has {ends[-1]} tokens; give more text, or evaluate "
                f"on fewer (eval_tokens)."
            )
        begin = int(ends[first - 1]) if first else 0  # index of the first token
        last = min(int(np.searchsorted(ends, begin + eval_tokens)) + 1, len(ends))
        stories = slice(first, last)
        story_bytes = torch.from_numpy(np.load(self.folder / "val_bytes.npy")[stories])
        ends = ends[stories] - begin
        nats = self.folder / "val_nats.npy"
        floor = float(np.load(nats)[stories].sum() / ends[-1]) if nats.exists() else None
        idx, targets, story = _rows(tokens[begin:], ends, block_size, end_of_text)
        return ValidationSet(idx, targets, story, story_bytes, floor)


class Batches:
    """Endless iterator of seeded batches (idx, targets), each (B, T) int64.

    Random windows, as in nanoGPT; a target is the token after its input.

    Args:
        tokens: The training stream, longer than block_size.
        block_size: T.
        batch_size: B.
        seed: Seed of the windows' positions.
        rank: Index of a process that takes its share of the windows.
        processes: So many share them: together they draw those of one with so many times B.
    """

    def __init__(
        self,
        tokens: Tokens,
        block_size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._tokens = tokens
        self._windows = batch_size * processes
        self._own = slice(batch_size * rank, batch_size * (rank + 1))
        self._window = np.arange(block_size + 1)
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        starts = self._rng.integers(len(self._tokens) - len(self._window) + 1, size=self._windows)[
            self._own
        ]
        windows = self._tokens[starts[:, None] + self._window].astype(np.int64)  # (B, T + 1)
        both = torch.from_numpy(windows)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream, as JSON can hold it."""
        return dict(self._rng.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where state_dict() was taken."""
        self._rng.bit_generator.state = state


def prepare(data: DataConfig, progress: Progress = lambda message: None) -> TokenData:
    """Return the tokens of a configuration's text, from the cache or made now.

    Safe for several processes at once: one makes them, the others wait. A killed one leaves nothing
    that would be used. "auto" is the hub's data set if it is cached or the hub answers, else the
    built-in corpus.

    Args:
        data: A fingerprint asks for exactly those tokens: the source is read only if they are
            missing.
        progress: Called with a line for whatever takes long or must be known.

    Raises:
        InputError: the source cannot be read, the text does not suffice, or it is not the one of
            data.fingerprint.
        NetworkError: the hub or GPT-2's tokenizer cannot be reached, and no copy is kept here.
        StorageError: the cache cannot be written.
    """
    if data.fingerprint is not None:
        if not re.fullmatch(_FINGERPRINT, data.fingerprint):
            raise InputError(
                f"fingerprint must be 16 hexadecimal digits, but got {data.fingerprint!r}."
            )
        if known := _open(data.fingerprint):
            return _named(known, data)
    try:
        ready = _resolved(data, progress)
    except OSError as error:
        raise StorageError(
            f"the folder for tokens, {cache_folder()}, must be writable, but: {error.strerror}; "
            f"set SQUEN_SWEEP_CACHE to another one."
        ) from None
    if data.fingerprint not in (None, ready.meta.fingerprint):
        raise InputError(
            f"the text or the tokenizer changed: fingerprint {data.fingerprint} was asked for, but "
            f"{ready.meta.name} with {ready.meta.tokenizer} has {ready.meta.fingerprint}; "
            f"give the text that was there before, or start a study under another name."
        )
    return ready


def _rows(
    tokens: Tokens, ends: npt.NDArray[np.int64], block_size: int, end_of_text: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the stories that end at `ends` into inputs and targets (R, T) and story indices (R,)."""
    lengths = np.diff(ends, prepend=0)  # with <|endoftext|>
    rows_of = -(-lengths // block_size)
    story = np.repeat(np.arange(len(ends)), rows_of)
    stream = tokens[: ends[-1]].astype(np.int64)
    # position of every token: its story's first row, then on from there, row after row
    first_row = np.cumsum(rows_of) - rows_of
    position = np.arange(len(stream)) + np.repeat(
        first_row * block_size - (ends - lengths), lengths
    )
    idx = np.full(len(story) * block_size, end_of_text)
    targets = np.full(len(story) * block_size, PADDING)
    idx[position] = np.concatenate([[end_of_text], stream[:-1]])
    targets[position] = stream
    shape = (len(story), block_size)
    return (
        torch.from_numpy(idx.reshape(shape)),
        torch.from_numpy(targets.reshape(shape)),
        torch.from_numpy(story),
    )


def _resolved(data: DataConfig, progress: Progress) -> TokenData:
    """Return the tokens of a source; "auto" is tried as the hub, then as the built-in corpus."""
    if data.source != "auto":
        return _from_source(data, progress)
    try:
        hubs = data.model_copy(update={"source": "hub"})
        return _from_source(hubs, progress, hub.START_SECONDS)
    except hub.HubUnreachableError as error:
        progress(f"{error.reason}; the built-in story grammar is used instead")
        return _from_source(data.model_copy(update={"source": "built-in"}), progress)


def _from_source(data: DataConfig, progress: Progress, patience: float | None = None) -> TokenData:
    """Return the cached tokens of this source, or make them now."""
    settings = [corpus.identity(data), data.tokenizer, data.bpe_vocab_size]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    index = cache_folder() / "index" / key  # a file that holds the fingerprint, and an TextOrigin
    if known := _indexed(index, data):
        return known
    with lock(cache_folder() / "locks" / key, progress):
        return _indexed(index, data) or _make(data, index, progress, patience)


def _indexed(index: Path, data: DataConfig) -> TokenData | None:
    if not index.exists():
        return None
    fingerprint, _, account = index.read_text(encoding="utf-8", errors="replace").partition("\n")
    if not re.fullmatch(_FINGERPRINT, fingerprint):
        return None
    try:
        origin = TextOrigin.model_validate_json(account) if account else None
    except ValidationError:
        return None
    if origin is None and corpus.kind_of(data) == "files":  # of a version that may have misread it
        return None
    known = _open(fingerprint, origin)
    return known and _named(known, data)


def _named(tokens: TokenData, data: DataConfig) -> TokenData:
    """Return tokens under the name that `data` gives them, not that of an equal text before it."""
    kind = corpus.kind_of(data)
    if kind is None or tokens.meta.kind == "built-in":
        return tokens
    meta = tokens.meta.model_copy(update={"kind": kind, "name": corpus.name_of(data)})
    return TokenData(tokens.folder, meta, tokens.origin)


def _open(fingerprint: str, origin: TextOrigin | None = None) -> TokenData | None:
    """Open the cached tokens of a fingerprint; None if they are missing or incomplete."""
    folder = tokens_folder(fingerprint)
    meta = token_files.read_meta(folder)
    return TokenData(folder, meta, origin) if meta else None


def _make(data: DataConfig, index: Path, progress: Progress, patience: float | None) -> TokenData:
    """Read, tokenise and cache a source, whose text may turn out to be cached already."""
    # GPT-2's tokenizer first: it may be missing, and reading the text may take long
    gpt2 = tokenizer.gpt2() if data.tokenizer == "gpt2" else None
    text = corpus.read_corpus(data, progress, patience)
    encoding = gpt2 or _train_bpe(text, data.bpe_vocab_size, progress)
    identity = token_files.identify(text, encoding)
    folder = tokens_folder(identity.fingerprint)
    with lock(cache_folder() / "locks" / identity.fingerprint, progress):
        if not token_files.read_meta(folder):
            with complete_or_absent(folder) as temporary:
                token_files.write(temporary, text, encoding, identity, progress)
    new_index = index.with_suffix(".new")
    new_index.parent.mkdir(parents=True, exist_ok=True)
    account = text.origin.model_dump_json() if text.origin else ""
    new_index.write_text(f"{identity.fingerprint}\n{account}", encoding="utf-8")
    new_index.replace(index)
    meta = Meta.model_validate_json((folder / "meta.json").read_bytes())
    return _named(TokenData(folder, meta, text.origin), data)


def _train_bpe(text: Corpus, vocab_size: int | None, progress: Progress) -> "tiktoken.Encoding":
    if vocab_size is None:
        raise InputError('bpe_vocab_size must be a number where tokenizer = "bpe", but got none.')
    if sum(map(len, text.train)) > FAST_BPE_CHARS:  # else it takes no time
        progress(f"learning a vocabulary of {vocab_size:,} tokens from {text.name}")
    # A study is written for real stories: the grammar's few hundred words must not stop it.
    parts = _parts(text.train[0]) if text.is_document else text.train
    encoding = tokenizer.train_bpe(parts, vocab_size, or_fewer=text.kind == "built-in")
    if encoding.n_vocab < vocab_size:
        progress(f"{text.name} has words for a vocabulary of {encoding.n_vocab:,} tokens only")
    return encoding


def _parts(document: str) -> Iterator[str]:
    """Cut a document, so that a vocabulary is trained on no more of it than is needed."""
    for first in range(0, len(document), PART_CHARS):
        yield document[first : first + PART_CHARS]
