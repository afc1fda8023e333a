"""Where text comes from: local files and folders, a data set of the hub, the built-in story grammar.

Gives lists of stories; knows nothing of tokens. Add a source by adding one function that returns a Corpus
and one line in read_corpus and in identity.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt.config import DataConfig
from gpt.errors import InputError
from gpt.tokenizer import END_OF_TEXT

Progress = Callable[[str], None]
Kind = Literal["hub", "files", "built-in"]

BUILT_IN = "built-in story grammar"
BUILT_IN_STORIES = 20_000  # for training, unless max_stories says otherwise
BUILT_IN_VALIDATION_STORIES = 500
BUILT_IN_SEEDS = (1, 2)  # training, validation
BUILT_IN_NOTICE = (
    "This text is the built-in story grammar, NOT TinyStories: perplexities compare with each other "
    "and with the grammar's own floor, not with TinyStories figures. For real stories give "
    "--data PATH, or --data hub on a machine that reaches the Hugging Face hub."
)
VALIDATION_FRACTION = 0.05  # of stories that come without a split of their own
FORMATS = (".txt", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Corpus:
    """Stories of a training and a validation split that share no text."""

    kind: Kind
    name: str  # a hub name, a path, or the built-in corpus's name
    train: list[str]
    validation: list[str]
    validation_nats: list[float] | None = None  # exact -log probability per story, where known
    notice: str | None = None  # what every reader of a result must be told


def read_corpus(data: DataConfig, progress: Progress) -> Corpus:
    """Read the stories that a configuration names.

    Raises:
        InputError: the source is missing, empty, unreadable or too small to split.
    """
    if data.source == "built-in":
        return built_in(data.max_stories, progress)
    return read_files(Path(data.source), data.max_stories, progress)


def built_in(max_stories: int | None, progress: Progress) -> Corpus:
    """Stories of the built-in grammar: always the same ones."""
    from gpt import grammar

    count = max_stories or BUILT_IN_STORIES
    progress(f"telling {count:,} stories of the built-in grammar")
    train_seed, validation_seed = BUILT_IN_SEEDS
    validation = list(grammar.stories(validation_seed, BUILT_IN_VALIDATION_STORIES))
    held_out = {story.text for story in validation}
    told = grammar.stories(train_seed, count + len(held_out))
    train = (story.text for story in told if story.text not in held_out)
    return Corpus(
        kind="built-in",
        name=BUILT_IN,
        train=list(itertools.islice(train, count)),
        validation=[story.text for story in validation],
        validation_nats=[story.nats for story in validation],
        notice=BUILT_IN_NOTICE,
    )


def read_files(path: Path, max_stories: int | None, progress: Progress) -> Corpus:
    """Stories of a file, or of all files below a folder.

    Names decide the split where they say train, valid, val, dev or test; otherwise each story's own
    hash does, so that two copies of a story never end up on both sides.
    """
    train_files, validation_files = split_by_name(path)
    progress(f"reading {path}")
    stories = _stories(train_files)
    if validation_files:
        validation = list(_stories(validation_files))
        held_out = set(validation)
        train = list(itertools.islice((s for s in stories if s not in held_out), max_stories))
    else:
        train, validation = split_by_hash(stories, max_stories)
    if not train or not validation:
        raise InputError(
            f"{path} must hold at least two different stories, one to train on and one to validate; "
            f"separate the stories of a .txt file by {END_OF_TEXT}."
        )
    return Corpus(kind="files", name=str(path), train=train, validation=validation)


def split_by_name(path: Path) -> tuple[list[Path], list[Path]]:
    """Training and validation files at a path; no validation file where names do not tell.

    Raises:
        InputError: nothing readable is there.
    """
    if path.is_file():
        return [_readable(path)], []
    files = _files_below(path)
    named: dict[str | None, list[Path]] = {}
    for file in files:
        named.setdefault(_split_of(file), []).append(file)
    train = named.get("train") or named.get(None) or []
    validation = named.get("validation") or named.get("test") or []
    if not train:
        raise InputError(f"{path} must hold a training file as well, but has only {validation[0]}.")
    return train, validation


def split_by_hash(stories: Iterable[str], max_stories: int | None) -> tuple[list[str], list[str]]:
    """Training and validation stories: a story's SHA-256 alone decides where it goes.

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


def identity(data: DataConfig) -> dict[str, Any]:
    """What a source is without reading it: paths, sizes and times; a grammar's code; a hub name.

    Two equal identities hold the same text, so that a prepared copy can be used.

    Raises:
        InputError: the path is missing or holds nothing readable.
    """
    limits: dict[str, Any] = {"max_stories": data.max_stories}
    if data.source == "built-in":
        from gpt import grammar

        code = Path(grammar.__file__).read_bytes()
        return limits | {"built-in": hashlib.sha256(code).hexdigest(), "seeds": BUILT_IN_SEEDS}
    path = Path(data.source)
    train, validation = split_by_name(path)
    return limits | {"train": _stamps(train), "validation": _stamps(validation)}


def normalise(text: str) -> str:
    """A story without the white space around it, its lines ended by \\n alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _stories(files: Iterable[Path]) -> Iterator[str]:
    """All stories of some files that hold more than white space."""
    for file in files:
        texts = _text_file(file) if file.suffix == ".txt" else _table_file(file)
        yield from filter(None, map(normalise, texts))


def _text_file(path: Path) -> Iterator[str]:
    """The pieces between <|endoftext|>, read by the megabyte so that a limit ends the reading.

    Not through datasets: its text loader gives lines, or with sample_by="document" the whole file as
    one row, 90 times slower than this (12 MB: 2.3 s against 0.03 s).
    """
    rest = ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            while chunk := file.read(1 << 20):
                if "\0" in chunk:
                    raise InputError(f"{path} must be UTF-8 text, but holds a zero byte.")
                *whole, rest = (rest + chunk).split(END_OF_TEXT)
                yield from whole
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} must be UTF-8 text, but byte {error.start:,} of a block is not."
        ) from None
    except OSError as error:
        raise InputError(f"{path} must be readable, but {error.strerror}.") from None
    yield rest


def _table_file(path: Path) -> Iterator[str]:
    """The column text of a .jsonl or .parquet file, in batches, without a copy in datasets' cache."""
    import datasets

    builder = {".jsonl": "json", ".parquet": "parquet"}[path.suffix]
    try:
        rows = datasets.load_dataset(builder, data_files=str(path), split="train", streaming=True)
        if "text" not in rows.column_names:
            raise InputError(
                f"{path} must have a column named text, but has {', '.join(rows.column_names)}."
            )
        for batch in rows.select_columns(["text"]).with_format("arrow").iter(1_000):
            yield from _strings(batch["text"].to_pylist(), path)
    except InputError:
        raise
    except Exception as error:  # pyarrow, json and datasets each raise their own
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(f"{path} must be a {path.suffix} file, but {first_line}") from None


def _strings(values: list[Any], path: Path) -> Iterator[str]:
    """The values that are there; a row without text is no story."""
    for value in values:
        if value is None:
            continue
        if not isinstance(value, str):
            raise InputError(f"{path} must hold strings in its column text, but got {value!r:.60}.")
        yield value


def _files_below(path: Path) -> list[Path]:
    """Readable files of a folder and its folders, in the order of their names."""
    if not path.exists():
        raise InputError(
            f"--data must be auto, hub, built-in or an existing file or folder, but got {path}."
        )
    files = (file for file in path.rglob("*") if file.is_file())
    found = sorted(file for file in files if file.suffix in FORMATS and not _hidden(file, path))
    if not found:
        raise InputError(f"{path} must hold {_formats()} files, but there are none.")
    return found


def _readable(path: Path) -> Path:
    if path.suffix not in FORMATS:
        raise InputError(f"{path} must be a {_formats()} file or a folder of them.")
    return path


def _formats() -> str:
    return ", ".join(FORMATS[:-1]) + " or " + FORMATS[-1]


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


# train.txt, valid-00000-of-00001.parquet, TinyStoriesV2-GPT4-train.txt, but not constraint.txt or value.txt
_SPLITS = {
    "train": re.compile(r"(?<![a-z])train(ing)?(?![a-z])"),
    "validation": re.compile(r"(?<![a-z])(val|valid|validation|dev)(?![a-z])"),
    "test": re.compile(r"(?<![a-z])test(ing)?(?![a-z])"),
}


def _split_of(file: Path) -> str | None:
    name = file.name.lower()
    return next((split for split, word in _SPLITS.items() if word.search(name)), None)


def _fraction(story: str) -> float:
    """A number in [0, 1) that depends on the story alone."""
    return int.from_bytes(hashlib.sha256(story.encode()).digest()[:8], "big") / 2**64


def _stamps(files: list[Path]) -> list[tuple[str, int, int]]:
    """What changes when a file does: its path, size and time of change (ns)."""
    return [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
