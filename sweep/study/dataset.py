"""The text of a study: the configuration that finds it again, and the facts stored about it."""

import math
from typing import Any

from gpt.config import DataConfig
from gpt.data.dataset import TokenData
from sweep.study.paths import read_path
from sweep.study.spec import StudySpec


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


def data_facts(tokens: TokenData, spec: StudySpec) -> dict[str, Any]:
    """Return the study's attribute "data": name, kind, fingerprint, sizes and floor of its text."""
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
    }
