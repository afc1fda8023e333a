"""A tokenizer as tokenizer.json, which the library `tokenizers` and all that use it read."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gpt.data.tokenizer import END_OF_TEXT, byte_of_letter, end_of_text, tokens_of
from gpt.errors import InputError

if TYPE_CHECKING:
    import tiktoken

# GPT-2's pre-tokenisation in the three spellings that tiktoken has had; ByteLevel has it built in.
_GPT2_PATTERNS = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
)


def to_tokenizer_json(encoding: "tiktoken.Encoding") -> str:
    """Return an encoding as a tokenizer.json that gives the same ids.

    It puts <|endoftext|> before a text, as every story has it in training; a caller may leave it
    out (`add_special_tokens=False`).

    Args:
        encoding: A byte-level BPE with GPT-2's pre-tokenisation: GPT-2's own, or one trained here.

    Raises:
        InputError: it cuts text in another way.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    if encoding._pat_str not in _GPT2_PATTERNS:
        raise InputError(
            f"the tokenizer {encoding.name} must cut text as GPT-2 does to be exported, but its "
            f"pattern is {encoding._pat_str!r}."
        )
    letter_of = {byte: letter for letter, byte in byte_of_letter().items()}

    def written(token: bytes) -> str:
        return "".join(letter_of[byte] for byte in token)

    vocabulary = {written(token): rank for rank, token in enumerate(tokens_of(encoding))}
    merges = [(written(left), written(right)) for left, right in _merges(encoding)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B",
        special_tokens=[(END_OF_TEXT, end_of_text(encoding))],
    )
    return str(tokenizer.to_str(pretty=True))


def _merges(encoding: "tiktoken.Encoding") -> list[tuple[bytes, bytes]]:
    """List the pair that each token of several bytes is merged from, in the order of ranks.

    tiktoken keeps the ranks of tokens alone: a token's pair is what the merges before its own leave
    of its bytes.
    """
    ranks: dict[bytes, int] = encoding._mergeable_ranks
    found = []
    for token in tokens_of(encoding):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            merged = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
            at = min(range(len(merged)), key=merged.__getitem__)
            if merged[at] >= ranks[token]:
                break  # no text ever comes to this token
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
    return found


def tokenizer_config(encoding: "tiktoken.Encoding", block_size: int) -> dict[str, Any]:
    """Return the tokenizer_config.json that `transformers` reads beside a tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
