"""Sources of text: a data set of the hub, local files, the built-in story grammar.

Add a source by adding one function that returns a Corpus, and what identifies it in identity().
"""

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gpt.config import DataConfig
from gpt.data import files as text_files
from gpt.data import hub, nanogpt
from gpt.data.tokenizer import END_OF_TEXT
from gpt.errors import InputError

Progress = Callable[[str], None]
Kind = Literal["hub", "files", "built-in"]

BUILT_IN_NAME = "built-in story grammar"
BUILT_IN_STORIES = 20_000  # for training, unless max_stories says otherwise
BUILT_IN_VALIDATION_STORIES = 500
BUILT_IN_SEEDS = (1, 2)  # training, validation
BUILT_IN_NOTICE = (
    "This text is the built-in story grammar, NOT TinyStories: its perplexities compare with each "
    "other and with the grammar's own floor only. For real stories give --data PATH, or --data hub "
    "on a machine that reaches the Hugging Face hub."
)
HUB_VALIDATION_STORIES = 2_000  # read when max_stories is set: about 400,000 tokens of TinyStories
VALIDATION_FRACTION = 0.05  # of stories that come without a split of their own


class TextOrigin(BaseModel):
    """Account of the reading of a text: what became which split, and what was left aside."""

    model_config = ConfigDict(frozen=True)

    train: list[str]  # files as seen from the given path, or a split of a hub data set
    validation: list[str]  # likewise; empty where it was cut off from the training text
    cut: Literal["", "by hash", "by position"]  # the way in which it was cut off
    unread: list[str]  # what else is there


@dataclass(frozen=True)
class Corpus:
    """Training and validation stories, of which none is in both."""

    kind: Kind
    name: str  # a hub name, a path, "built-in story grammar"
    train: list[str]
    validation: list[str]
    validation_nats: list[float] | None = None  # exact -log probability of each, where known
    notice: str | None = None  # for every reader of a result
    origin: TextOrigin | None = None  # None: the text has no files or splits

    @property
    def is_document(self) -> bool:
        """True where one document was cut by position, and its parts are no stories."""
        return self.origin is not None and self.origin.cut == "by position"


def read_corpus(data: DataConfig, progress: Progress, patience: float | None = None) -> Corpus:
    """Read the stories that data.source names: "hub", "built-in" or a path.

    Args:
        data: Its source is not "auto".
        progress: Called with a line for whatever takes long.
        patience: Seconds that the hub's first story may take; None: no limit.

    Raises:
        InputError: the source is missing, unreadable, or too small to split.
        NetworkError: the hub does not answer, and there is no local copy.
    """
    if data.source == "built-in":
        return _built_in(data.max_stories, progress)
    if data.source == "hub":
        return _hub(data, progress, patience)
    return _files(_path(data.source), data.column, data.max_stories, progress)


def identity(data: DataConfig) -> dict[str, Any]:
    """Identify a source without reading it: paths, sizes and times; hub names; grammar code.

    Equal identities have the same text, so that tokens prepared for one serve the other.

    Raises:
        InputError: the path is missing or holds nothing readable.
    """
    if data.source == "built-in":
        source: Any = [_grammar_code(), BUILT_IN_SEEDS]
    elif data.source == "hub":
        source = data.hub_name
        if data.hub_config or data.split != DataConfig().split:
            source = [data.hub_name, data.hub_config, data.split]
    else:
        files = text_files.find(_path(data.source))
        source = [
            [text_files.stamp(file) for file in split] for split in (files.train, files.validation)
        ]
        if nanogpt.is_token_file(files.train[0]) and (
            vocabulary := nanogpt.vocabulary_file(files.train[0].parent)
        ):
            source.append(text_files.stamp(vocabulary))
    identity = {"kind": kind_of(data), "source": source, "max_stories": data.max_stories}
    return identity | ({"column": data.column} if data.column is not None else {})


def kind_of(data: DataConfig) -> Kind | None:
    """Return the kind of a configuration's source; None for "auto", which may be two."""
    match data.source:
        case "auto":
            return None
        case "hub" | "built-in" as kind:
            return kind
    return "files"


def name_of(data: DataConfig) -> str:
    """Return the name of a source, as its user gave it."""
    match kind_of(data):
        case "files":
            return str(_path(data.source))
        case "hub":
            return "/".join(filter(None, (data.hub_name, data.hub_config)))
    return BUILT_IN_NAME


def split_by_hash(stories: Iterable[str], max_stories: int | None) -> tuple[list[str], list[str]]:
    """Split into training and validation stories by each story's SHA-256, copies together.

    Reading ends after max_stories training stories. At least one story validates.
    """
    train: list[str] = []
    validation: list[str] = []
    for story in stories:
        if len(train) == max_stories:
            break
        (validation if _fraction(story) < VALIDATION_FRACTION else train).append(story)
    if train and not validation:
        chosen = min(train, key=_fraction)
        validation = [story for story in train if story == chosen]
        train = [story for story in train if story != chosen]
    return train, validation


def split_by_position(text: str) -> tuple[list[str], list[str]]:
    """Split one document into its first nine tenths, to train on, and the rest, as nanoGPT does."""
    at = len(text) * 9 // 10
    return ([text[:at]], [text[at:]]) if at else ([], [])


def normalise(text: str) -> str:
    """Strip a story and end its lines by \\n alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def throttled(progress: Progress, seconds: float = 2.0) -> Progress:
    """Limit a progress callback to one message in so many seconds, the first after as many."""
    due = time.monotonic() + seconds

    def show(message: str) -> None:
        nonlocal due
        if time.monotonic() >= due:
            progress(message)
            due = time.monotonic() + seconds

    return show


def _path(source: str) -> Path:
    if not source.strip():  # Path("") is the current folder
        raise InputError(
            f"--data, or source in [data], must be auto, hub, hub:NAME, built-in, or a file or "
            f"folder that exists, but got {source!r}."
        )
    return Path(source).expanduser()


def _built_in(max_stories: int | None, progress: Progress) -> Corpus:
    from gpt.data.grammar import grammar

    count = max_stories or BUILT_IN_STORIES
    train_seed, validation_seed = BUILT_IN_SEEDS
    validation = list(grammar.stories(validation_seed, BUILT_IN_VALIDATION_STORIES))
    held_out = [story.text for story in validation]
    # as many more as could turn out to be validation stories
    drawn = (story.text for story in grammar.stories(train_seed, count + len(held_out)))
    return Corpus(
        kind="built-in",
        name=BUILT_IN_NAME,
        train=_unlike(held_out, _counted(drawn, BUILT_IN_NAME, progress, count), count),
        validation=held_out,
        validation_nats=[story.nats for story in validation],
        notice=BUILT_IN_NOTICE,
    )


def _hub(data: DataConfig, progress: Progress, patience: float | None) -> Corpus:
    name = name_of(data)
    if held_out := text_files.only_held_out(data.split):
        raise InputError(
            f"split must be one to train on, but by its name {data.split!r} is for {held_out}."
        )
    limit = "may take minutes" if patience is None else f"has {patience:g} s"
    progress(f"asking the Hugging Face hub for {name}; its first story {limit}")
    data_set = hub.HubDataset(data.hub_name, data.hub_config, data.column)
    if data_set.reason:
        progress(f"reading the copy of {name} that `datasets` keeps, because {data_set.reason}")
    count = data.max_stories and HUB_VALIDATION_STORIES
    others = data_set.stories(data.split, patience, held_out=True)
    validation = list(islice(_clean(others), count))
    validation_name = hub.validation_split(data.split, data_set.splits)
    texts = _clean(data_set.stories(data.split, patience))
    stories = _counted(texts, name, progress, data.max_stories)
    if validation_name:
        train = _unlike(validation, stories, data.max_stories)
    else:
        train, validation = split_by_hash(stories, data.max_stories)
    if not train or not validation:
        raise InputError(
            f"{name} must have stories to train on in its split {data.split}, and others in "
            f"{validation_name or 'it'} to validate."
        )
    origin = TextOrigin(
        train=[data.split],
        validation=[validation_name] if validation_name else [],
        cut="" if validation_name else "by hash",
        unread=[split for split in data_set.splits if split not in (data.split, validation_name)],
    )
    return Corpus(kind="hub", name=name, train=train, validation=validation, origin=origin)


def _files(path: Path, column: str | None, max_stories: int | None, progress: Progress) -> Corpus:
    cut: Literal["", "by hash", "by position"]
    files = text_files.find(path)
    stories = _counted(_clean(text_files.read_files(files.train, column)), str(path), progress)
    if files.validation:
        cut, validation = "", list(_clean(text_files.read_files(files.validation, column)))
        train = _unlike(validation, stories, max_stories)
        if nanogpt.is_token_file(files.train[0]) and len(train) == len(validation) == 1:
            cut = "by position"  # nanoGPT's prepare.py has done so
    else:
        cut = "by hash"
        train, validation = split_by_hash(stories, max_stories)
        if len(train) + len(validation) == 1 and text_files.may_be_document(files.train):
            cut = "by position"
            train, validation = split_by_position(*train, *validation)
    if not train or not validation:
        raise InputError(
            f"{path} must hold at least two different stories, to train on and to validate; "
            f"in a .txt file, {END_OF_TEXT} separates stories."
        )
    origin = TextOrigin(
        train=files.names(files.train),
        validation=files.names(files.validation),
        cut=cut,
        unread=files.names(files.unread),
    )
    return Corpus(kind="files", name=str(path), train=train, validation=validation, origin=origin)


def _unlike(held_out: list[str], stories: Iterable[str], count: int | None) -> list[str]:
    """Take the first `count` stories that are not held out."""
    known = set(held_out)
    return list(islice((story for story in stories if story not in known), count))


def _clean(texts: Iterable[str]) -> Iterator[str]:
    """Normalise stories and drop empty ones."""
    return filter(None, map(normalise, texts))


def _counted(
    stories: Iterable[str], name: str, progress: Progress, total: int | None = None
) -> Iterator[str]:
    """Pass stories on and report their number, with a percentage if the total is known."""
    show = throttled(progress)
    for number, story in enumerate(stories):
        if number % 256 == 0:
            of_all = f" of {total:,}" if total else ""
            show(f"reading {name}: {number:,}{of_all} stories{percentage(number, total)}")
        yield story


def percentage(done: int, total: int | None) -> str:
    """Return " (37%)" for the end of a message; empty if the total is not known."""
    return f" ({min(done / total, 1):.0%})" if total else ""


def _fraction(story: str) -> float:
    """Hash a story to a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(story.encode()).digest()[:8], "big") / 2**64


def _grammar_code() -> str:
    """SHA-256 of the modules that generate the built-in stories."""
    from gpt.data.grammar import grammar, lexicon, stories

    sha = hashlib.sha256()
    for module in (grammar, lexicon, stories):
        sha.update(inspect.getsource(module).encode())
    return sha.hexdigest()
