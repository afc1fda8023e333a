"""Data sets of nanoGPT: train.bin and val.bin, ids in uint16, and perhaps meta.pkl.

A set of characters has their ids in meta.pkl ("stoi" and "itos"); without that file the ids are
GPT-2's. Its train.py takes the vocabulary's size from there, its sample.py both.

Source: karpathy/nanoGPT, train.py, sample.py, data/*/prepare.py
"""

import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpt.data.tokenizer import end_of_text, gpt2, read_encoding, tokens_of
from gpt.errors import InputError
from gpt.system.files import atomic_write_text, sync

if TYPE_CHECKING:
    import tiktoken

TRAIN, VALIDATION, META = "train.bin", "val.bin", "meta.pkl"
IDS_AT_ONCE = 1 << 20
LARGEST_META = 1 << 26  # bytes; the characters of Unicode take 2 MB
GPT2 = "gpt2"  # tiktoken's name

Decode = Callable[[npt.NDArray[np.uint16]], bytes]  # to UTF-8; a character may be two tokens


def is_token_file(file: Path) -> bool:
    """Return True for a file that `read_tokens` may read, by its name."""
    return file.name in (TRAIN, VALIDATION)


def vocabulary_file(folder: Path) -> Path | None:
    """Return the file of a data set that says what its ids mean; None: they are GPT-2's."""
    ours = folder / "tokenizer.json"  # of a folder of gpt.data.token_files
    return next((file for file in (ours, folder / META) if file.exists()), None)


def read_tokens(file: Path) -> Iterator[str]:
    """Yield the stories of a token file, those between <|endoftext|>; one document without it.

    The ids are those of the tokenizer.json of squen-sweep, or of the meta.pkl, beside the file,
    else GPT-2's. Of a pickle only plain values are loaded: one that names code is refused.

    Args:
        file: A train.bin or val.bin.

    Raises:
        InputError: it is truncated, holds other ids, or its meta.pkl cannot be used.
        NetworkError: see gpt.data.tokenizer.gpt2.
    """
    size = file.stat().st_size
    if size % 2:
        raise InputError(
            f"{file} must hold ids of two bytes each, but it has {size:,} bytes: it is truncated, "
            f"or another kind of file."
        )
    vocab_size, end, decode = _vocabulary(file.parent)
    if size == 0:
        return
    tokens = np.memmap(file, dtype=np.uint16, mode="r")
    story: list[bytes] = []
    for first in range(0, len(tokens), IDS_AT_ONCE):
        ids = np.array(tokens[first : first + IDS_AT_ONCE])
        if int(ids.max()) >= vocab_size:
            raise InputError(
                f"{file} must hold ids below {vocab_size:,}, the size of its vocabulary, but holds "
                f"{int(ids.max()):,}; {META} beside it must be of the same data set."
            )
        cuts = [] if end is None else np.flatnonzero(ids == end).tolist()
        begin = 0
        for cut in cuts:
            yield _text([*story, decode(ids[begin:cut])])
            story, begin = [], cut + 1
        story.append(decode(ids[begin:]))
    yield _text(story)


def _text(parts: list[bytes]) -> str:
    return b"".join(parts).decode(errors="replace")


def _vocabulary(folder: Path) -> tuple[int, int | None, Decode]:
    """Return the size of a data set's vocabulary, its end of text, and the way back to text."""
    file = vocabulary_file(folder)
    if file is None or file.name != META:
        return _of_encoding(gpt2() if file is None else read_encoding(file))
    characters = _characters(file)
    table = np.array(characters, dtype=object)
    return len(characters), None, lambda ids: "".join(table[ids].tolist()).encode()


def _of_encoding(encoding: "tiktoken.Encoding") -> tuple[int, int, Decode]:
    def decode(ids: npt.NDArray[np.uint16]) -> bytes:
        return encoding.decode_bytes(ids.tolist())

    return encoding.n_vocab, end_of_text(encoding), decode


def _characters(path: Path) -> list[str]:
    """Read the characters of a meta.pkl, by id."""
    meta = _plain_values(path)
    itos = meta.get("itos") if isinstance(meta, dict) else None
    if isinstance(itos, dict):
        known = [itos.get(number) for number in range(len(itos))]
    else:
        known = list(itos) if isinstance(itos, list) else []
    if not known or not all(isinstance(character, str) for character in known):
        raise InputError(
            f"{path} must have nanoGPT's itos, the text of each id from 0, but it has "
            f"{_keys(meta)}; remove it if the ids are GPT-2's."
        )
    return [str(character) for character in known]


def _keys(meta: Any) -> str:
    if isinstance(meta, dict):
        return ", ".join(map(str, list(meta)[:4])) or "nothing"
    return f"a {type(meta).__name__}"


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler of numbers, strings, lists and dicts; a pickle that names code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and no code of a file is run")


def _plain_values(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_META:
            raise ValueError(f"it is larger than {LARGEST_META >> 20} MiB")
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises nearly any error
        raise InputError(
            f"{path} must be a meta.pkl of nanoGPT with plain values, but {error}."
        ) from None


# --- for nanoGPT's programs ---------------------------------------------------------------------


def meta_pickle(encoding: "tiktoken.Encoding") -> bytes | None:
    """Return the meta.pkl with which nanoGPT's programs use an encoding; None: they need none.

    sample.py looks a prompt up character by character, so `stoi` has the characters that are a
    token, and `itos` the text of every token; a token that ends within a character is a U+FFFD.
    Without a meta.pkl it takes GPT-2's tokens, and train.py 50,304 rows for them.
    """
    if encoding.name == GPT2:
        return None
    texts = [token.decode(errors="replace") for token in tokens_of(encoding)]
    stoi = {
        text: number
        for number, (text, token) in enumerate(zip(texts, tokens_of(encoding), strict=True))
        if len(text) == 1 and text.encode() == token
    }
    itos = dict(enumerate([*texts, encoding.decode([end_of_text(encoding)])]))
    return pickle.dumps({"vocab_size": encoding.n_vocab, "stoi": stoi, "itos": itos})


def renew_meta(folder: Path) -> None:
    """Give a folder of tokens that an earlier version wrote the meta.pkl of this one.

    A kill at any moment leaves a folder that counts as complete: its meta.json forgets the size of
    the file before the file changes.

    Args:
        folder: One of gpt.data.token_files, with its meta.json.

    Raises:
        OSError: it cannot be written.
    """
    content = meta_pickle(read_encoding(folder / "tokenizer.json"))
    path = folder / META
    if (path.read_bytes() if path.exists() else None) == content:
        return
    meta: Mapping[str, Any] = json.loads((folder / "meta.json").read_bytes())
    meta["file_sizes"].pop(META, None)
    atomic_write_text(folder / "meta.json", json.dumps(meta, indent=2))
    if content is None:
        path.unlink()
        return
    new = path.with_name(f".{META}.{os.getpid()}")
    new.write_bytes(content)
    sync(new)
    new.replace(path)
