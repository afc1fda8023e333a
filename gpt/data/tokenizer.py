"""Tokenizers, as tiktoken.Encoding: GPT-2's, or a byte-level BPE trained on the corpus.

<|endoftext|> is the last id of every encoding here.
"""

import base64
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt.data.network import unreachable_reason
from gpt.errors import InputError, NetworkError

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"

# GPT-2's pre-tokenisation, in tiktoken's possessive spelling: the same pieces, faster.
# Source: tiktoken_ext.openai_public.r50k_pat_str
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# What tiktoken fetches for GPT-2, with the SHA-256 that it checks. Source:
# tiktoken_ext.openai_public.gpt2
GPT2_ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}

# A BPE is trained on this much text per token of its vocabulary (5 MB for 2048). On real stories
# that makes at most 0.07 % more tokens (300 to 8192) than 12 MB does, in half the time for 2048.
TRAINING_BYTES_PER_TOKEN = 2_500

# For training only, a word of more than 2,048 letters, digits, signs or spaces is cut there: each
# merge reads a word in full, so that one of 300,000 letters would take minutes.
LONG_WORD = r"\p{L}{2048}|\p{N}{2048}|[^\s\p{L}\p{N}]{2048}|\s{2048}"


def end_of_text(encoding: "tiktoken.Encoding") -> int:
    """Id of <|endoftext|>, the last one."""
    return encoding.n_vocab - 1


def gpt2() -> "tiktoken.Encoding":
    """Load GPT-2's encoding of 50,257 ids from tiktoken's cache, or fetch it.

    Raises:
        NetworkError: it is not in the cache and cannot be fetched.
    """
    missing = [name for name, sha256 in GPT2_FILES.items() if not _cached(name, sha256)]
    reason = unreachable_reason(GPT2_ADDRESS + missing[0]) if missing else None
    if not reason:
        import tiktoken

        try:
            return tiktoken.get_encoding("gpt2")
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            reason = str(error)
    raise NetworkError(
        f"the gpt2 tokenizer must be in TIKTOKEN_CACHE_DIR ({_cache_folder()}) or fetched, but "
        f"{', '.join(missing)} is missing or damaged there and {reason}; put "
        f"{', '.join(f'{name} as {_cache_name(name)}' for name in GPT2_FILES)} there, "
        f'or choose tokenizer = "bpe".'
    )


def train_bpe(
    texts: Iterable[str], vocab_size: int, *, or_fewer: bool = False
) -> "tiktoken.Encoding":
    """Train a byte-level BPE of vocab_size ids: 256 bytes, the merges, <|endoftext|>.

    Args:
        texts: Stories. Only the first vocab_size * TRAINING_BYTES_PER_TOKEN bytes are read.
        vocab_size: At least 257.
        or_fewer: Accept a smaller vocabulary if the text has too few pairs.

    Raises:
        InputError: the text has too few different pairs for that many merges.
    """
    sample = _first_bytes(texts, vocab_size * TRAINING_BYTES_PER_TOKEN)
    ranks = _train_ranks(sample, vocab_size - 1)
    if len(ranks) < vocab_size - 1 and not or_fewer:
        raise InputError(
            f"bpe_vocab_size must be at most {len(ranks) + 1} for this text, which has no more "
            f"pairs to merge, but got {vocab_size}; choose a smaller one or give more text."
        )
    return _encoding(f"bpe-{len(ranks) + 1}", PATTERN, ranks)


def write_encoding(encoding: "tiktoken.Encoding", path: Path) -> None:
    """Write an encoding as JSON: its pattern, and its tokens in base64 in the order of ids."""
    tokens = [base64.b64encode(token).decode() for token in tokens_of(encoding)]
    content = {"name": encoding.name, "pattern": encoding._pat_str, "tokens": tokens}
    path.write_text(json.dumps(content, indent=0), encoding="utf-8")


def read_encoding(path: Path) -> "tiktoken.Encoding":
    """Read an encoding that write_encoding wrote.

    Raises:
        InputError: the file is missing or no such encoding.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        tokens = [base64.b64decode(token, validate=True) for token in content["tokens"]]
        ranks = {token: rank for rank, token in enumerate(tokens)}
        if len(ranks) != len(tokens) or any(bytes([byte]) not in ranks for byte in range(256)):
            raise ValueError("tokens repeat or single bytes are missing")
        return _encoding(content["name"], content["pattern"], ranks)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} must be a tokenizer written by squen-sweep, but {_reason(error)}."
        ) from None


def digest(encoding: "tiktoken.Encoding") -> str:
    """SHA-256 of an encoding: equal digests tokenise every text alike."""
    sha = hashlib.sha256(encoding._pat_str.encode())
    for token in tokens_of(encoding):
        sha.update(len(token).to_bytes(4, "little") + token)
    return sha.hexdigest()


def _cache_folder() -> Path:
    """Folder in which tiktoken caches downloads."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable])
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def _cache_name(name: str) -> str:
    return hashlib.sha1((GPT2_ADDRESS + name).encode()).hexdigest()


def _cached(name: str, sha256: str) -> bool:
    """Return whether tiktoken would use its cached file; one of another hash it fetches again."""
    try:
        content = (_cache_folder() / _cache_name(name)).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content).hexdigest() == sha256


def _encoding(name: str, pattern: str, ranks: dict[bytes, int]) -> "tiktoken.Encoding":
    import tiktoken  # late: training on tokens that are there needs none

    return tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )


def tokens_of(encoding: "tiktoken.Encoding") -> list[bytes]:
    """Return the bytes of each token by its id, without <|endoftext|>."""
    return sorted(encoding._mergeable_ranks, key=encoding._mergeable_ranks.__getitem__)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    return f"it holds something else ({error!r})"


def _first_bytes(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Yield texts until they have `limit` bytes."""
    seen = 0
    for text in texts:
        if seen >= limit:
            return
        yield text
        seen += len(text.encode())


def _train_ranks(texts: Iterator[str], size: int) -> dict[bytes, int]:
    """Train with Hugging Face's trainer: token -> rank, fewer than `size` if merges run out."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    trainer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(LONG_WORD), "isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer.pre_tokenizer = pre_tokenizers.Sequence([cut, words])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    trainer.train_from_iterator(texts, options)
    byte_of = byte_of_letter()
    vocabulary = sorted(trainer.get_vocab().items(), key=lambda item: item[1])
    return {
        bytes(byte_of[letter] for letter in token): rank
        for rank, (token, _) in enumerate(vocabulary)
    }


def byte_of_letter() -> dict[str, int]:
    """Map GPT-2's letters to bytes: printable ones are themselves, the others count from 256.

    Source: bytes_to_unicode in openai/gpt-2, src/encoder.py
    """
    spare = itertools.count(256)
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return {chr(byte if byte in own else next(spare)): byte for byte in range(256)}
