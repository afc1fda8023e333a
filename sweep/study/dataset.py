"""The text of a study: the configuration that finds it again, and the facts stored about it."""

import math
from collections.abc import Mapping
from typing import Any

from gpt.config import DataConfig
from gpt.data import corpus
from gpt.data.dataset import TokenData
from gpt.data.tokenizer import END_OF_TEXT
from sweep.study.paths import read_path
from sweep.study.spec import StudySpec

_DEFAULTS = DataConfig().model_dump()
SHOWN_NAMES = 4  # of files in a line; a data set may have a thousand


def pin_dataset(data: DataConfig, tokens: TokenData) -> DataConfig:
    """Return the configuration that finds exactly these tokens again, or fails."""
    meta = tokens.meta
    changes: dict[str, Any] = {"fingerprint": meta.fingerprint}
    if meta.kind == "files":
        changes["source"] = str(read_path(data.source, "data.source").resolve())
    else:  # what "auto" turned out to be
        changes["source"] = meta.kind
    if data.tokenizer == "bpe":  # a text of few words may hold fewer than were asked for
        changes["bpe_vocab_size"] = meta.vocab_size
    return data.model_copy(update=changes)


def source_facts(data: DataConfig) -> dict[str, Any]:
    """Facts that find a text again: "source" as --data gives it, and other options of [data].

    The path of files is left out: what is stored of it is relative to the database.
    """
    options = {name: getattr(data, name) for name in ("column", "split")}
    changed = {name: value for name, value in options.items() if value != _DEFAULTS[name]}
    source = {} if corpus.kind_of(data) != "hub" else {"source": f"hub:{corpus.name_of(data)}"}
    return {**source, **({"options": changed} if changed else {})}


def data_facts(tokens: TokenData, spec: StudySpec) -> dict[str, Any]:
    """Facts of a text, the study's attribute "data": name, kind, sizes, splits and floor.

    "splits" is the TextOrigin: what was read as which split. It is missing where there is
    nothing to choose from, or where only the tokens of the text were looked up.
    """
    meta = tokens.meta
    skipped = int(spec.base("eval_skip_tokens"))
    validation = tokens.validation(spec.block_size, spec.eval_tokens, skipped)
    floor = validation.floor_nats_per_token
    names = (
        "fingerprint kind name notice tokenizer vocab_size "
        "train_stories train_tokens validation_stories validation_tokens"
    )
    return {
        **{name: getattr(meta, name) for name in names.split()},
        "eval_tokens": int((validation.targets >= 0).sum()),
        "floor_perplexity": math.exp(floor) if floor is not None else None,
        **({"splits": tokens.origin.model_dump()} if tokens.origin else {}),
    }


def described(facts: Mapping[str, Any]) -> str:
    """Describe a text in one line: its name and tokenizer, and what was read as which split.

    Args:
        facts: See `data_facts`.
    """
    if splits := split_lines(facts):
        return "; ".join((f"{facts['name']}, {facts['tokenizer']}", *splits))
    return f"{facts['name']}, {facts['train_tokens']:,} training tokens, {facts['tokenizer']}"


def split_lines(facts: Mapping[str, Any]) -> list[str]:
    """Say in one or two lines what was read as which split.

    Args:
        facts: See `data_facts`.
    """
    splits = facts.get("splits")
    if splits is None:
        return []
    held_out = (
        f"of {_listed(splits['validation'])}" if splits["validation"] else CUTS[splits["cut"]]
    )
    lines = [
        f"training text: {amount(facts, 'train')} of {_listed(splits['train'])}; "
        f"validation text: {amount(facts, 'validation')} {held_out}"
    ]
    if splits["unread"]:
        lines.append(f"not read: {_listed(splits['unread'])}")
    return lines


CUTS = {
    "by hash": "cut off from it, about one story in twenty, chosen by its text",
    "by position": f"cut off from its end, one tenth: without {END_OF_TEXT} it is one document",
}


def amount(facts: Mapping[str, Any], split: str) -> str:
    """Return the stories and tokens of a split, in words."""
    stories = facts[f"{split}_stories"]
    counted = "1 story" if stories == 1 else f"{stories:,} stories"
    return f"{counted}, {facts[f'{split}_tokens']:,} tokens"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown + (f" and {more:,} more" if (more := len(names) - SHOWN_NAMES) > 0 else "")
