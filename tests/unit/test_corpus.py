"""Stories from files and from the built-in grammar: what is read, where it goes."""

import bz2
import gzip
import json
import math
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
from parsed_stories import parses
from pyarrow import parquet

from gpt.config import DataConfig
from gpt.data import corpus
from gpt.data.corpus import Corpus, identity, read_corpus, split_by_hash
from gpt.errors import InputError

STORIES = [f"Story {number} is about a cat.\nThe end." for number in range(200)]


def read(source: Path | str, max_stories: int | None = None, column: str | None = None) -> Corpus:
    data = DataConfig(source=str(source), max_stories=max_stories, column=column)
    return read_corpus(data, lambda line: None)


def write_txt(path: Path, stories: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n<|endoftext|>\n".join(stories))
    return path


def write_jsonl(path: Path, stories: list[str | None]) -> Path:
    path.write_text("".join(json.dumps({"id": 1, "text": story}) + "\n" for story in stories))
    return path


def write_parquet(path: Path, stories: list[str | None]) -> Path:
    parquet.write_table(pyarrow.table({"text": stories, "id": [1] * len(stories)}), path)
    return path


def test_txt_stories_are_cut_at_end_of_text_and_stripped_and_empty_ones_dropped(tmp_path):
    text = "\ufeffOne.\r\nMore.\r\n<|endoftext|>\r\n  Two. <|endoftext|>\n \n<|endoftext|>Three.\n"
    (tmp_path / "train.txt").write_bytes(text.encode())
    write_txt(tmp_path / "valid.txt", ["Four."])
    read_back = read(tmp_path)
    assert read_back.train == ["One.\nMore.", "Two.", "Three."]
    assert read_back.validation == ["Four."]
    assert (read_back.kind, read_back.name) == ("files", str(tmp_path))
    assert read_back.validation_nats is None
    assert read_back.notice is None


def test_all_formats_give_the_same_stories(tmp_path):
    texts = [
        write_txt(tmp_path / "a.txt", STORIES),
        write_jsonl(tmp_path / "a.jsonl", [*STORIES, None, ""]),
        write_parquet(tmp_path / "a.parquet", [*STORIES, None, ""]),
    ]
    first, *others = [read(path) for path in texts]
    assert sorted(first.train + first.validation) == sorted(STORIES)
    for other in others:
        assert other.train == first.train
        assert other.validation == first.validation


COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".JSONL", ".json", ".csv"])
def test_compressed_files_and_arrays_and_csv_give_the_same_stories(tmp_path, suffix, compression):
    contents = {
        ".txt": "\n<|endoftext|>\n".join(STORIES),
        ".JSONL": "\n".join(json.dumps({"text": story}) for story in STORIES),
        ".json": json.dumps([{"text": story} for story in [*STORIES, None]], indent=1),
        ".csv": "id,text\r\n" + "".join(f'1,"{story}"\r\n' for story in STORIES),
    }
    content = contents[suffix].encode()
    plain = tmp_path / f"plain{suffix}"
    plain.write_bytes(content)
    packed = tmp_path / f"packed{suffix}{compression}"
    packed.write_bytes(COMPRESS[compression](content))
    expected = read(write_txt(tmp_path / "expected.txt", STORIES))
    for path in (plain, packed):
        assert read(path).train == expected.train
        assert read(path).validation == expected.validation


@pytest.mark.parametrize("bad", ["5", "[1]", '"\\ud800"', "true"])
def test_one_record_of_many_that_is_no_string_is_refused_by_its_line_with_a_way_out(tmp_path, bad):
    path = write_jsonl(tmp_path / "my stories.jsonl", STORIES)
    path.write_text(path.read_text() + f'{{"text": {bad}}}\n')
    with pytest.raises(InputError, match=r"must hold strings in its column text, but line 201"):
        read(path)
    with pytest.raises(InputError) as caught:
        read(path)
    (command,) = re.findall(r"or (sed .*) removes it", str(caught.value))
    subprocess.run(shlex.split(command), check=True)
    assert len(read(path).train + read(path).validation) == len(STORIES)


def test_a_csv_converts_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,n", "NA,1", "007,2", "1e3,3", "null,4", ",5"]) + "\n")
    corpus = read(path)
    assert sorted(corpus.train + corpus.validation) == ["007", "1e3", "NA", "null"]


def test_bare_strings_of_a_jsonl_are_refused_in_our_words(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('"One."\n"Two."\n')
    with pytest.raises(InputError, match=r"must hold objects like .*, but line 1 is 'One\.'"):
        read(path)


@pytest.mark.parametrize("values", [[b"one", b"two"], [1, 2]])
def test_a_column_of_a_parquet_that_holds_no_strings_is_refused_by_its_type(tmp_path, values):
    parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"column text, but it holds (binary|int64)"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_column_is_the_one_that_is_named_or_the_only_one_of_strings(tmp_path, suffix):
    def table(columns: dict[str, list[object]]) -> Path:
        path = tmp_path / f"a{suffix}"
        frame = pandas.DataFrame(columns)
        match suffix:
            case ".csv":
                frame.to_csv(path, index=False)
            case ".jsonl":
                frame.to_json(path, orient="records", lines=True)
            case _:
                frame.to_parquet(path)
        return path

    numbers = list(range(len(STORIES)))
    alone = read(table({"id": numbers, "content": STORIES}))
    assert sorted(alone.train + alone.validation) == sorted(STORIES)
    two = table({"title": ["A title"] * len(STORIES), "content": STORIES})
    with pytest.raises(InputError, match=r"has: title, content; .*--column NAME"):
        read(two)
    assert read(two, column="content").train == alone.train
    with pytest.raises(InputError, match="must have a column body, but has: title, content"):
        read(two, column="body")


def test_a_split_with_plain_files_leaves_its_compressed_and_other_copies_aside(tmp_path):
    write_txt(tmp_path / "train.txt", ["a", "b"])
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(b"a<|endoftext|>b"))
    (tmp_path / "valid.json").write_text('[{"text": "c"}]')
    (tmp_path / "dataset_info.json").write_text("{}")
    corpus = read(tmp_path)
    assert (corpus.train, corpus.validation) == (["a", "b"], ["c"])
    assert corpus.origin.unread == ["dataset_info.json", "train.txt.gz"]


def test_a_plain_text_is_one_document_cut_by_position(tmp_path):
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 100
    (tmp_path / "shakespeare.txt").write_text(text)
    corpus = read(tmp_path / "shakespeare.txt")
    (train,), (validation,) = corpus.train, corpus.validation
    assert train + validation == text.strip()
    assert len(train) == len(text.strip()) * 9 // 10
    assert corpus.origin.cut == "by position"
    assert read(tmp_path).train == corpus.train


@pytest.mark.parametrize(
    ("encoding", "content", "says"),
    [
        ("utf-16", "The cat sat.", "UTF-16"),
        ("utf-16-le", "The cat sat.", "UTF-16LE"),
        ("utf-16-be", "The cat sat.", "UTF-16BE"),
        ("utf-32", "The cat sat.", "UTF-32"),
        ("latin-1", "Zoë met René in the café.", "LATIN1"),
        ("cp1252", "It’s “late”, said the cat.", "WINDOWS-1252"),
    ],
)
@pytest.mark.parametrize("name", ["my text.txt", "a.csv", "a.jsonl", "a.txt.gz"])
def test_another_encoding_is_named_with_the_command_that_converts_it(
    tmp_path, encoding, content, says, name
):
    stories = [f"{content} {number}" for number in range(50)]
    text = {
        ".txt": "<|endoftext|>".join(stories),
        ".gz": "<|endoftext|>".join(stories),
        ".csv": "id,text\n" + "".join(f'1,"{story}"\n' for story in stories),
        ".jsonl": "".join(json.dumps({"text": s}, ensure_ascii=False) + "\n" for s in stories),
    }[Path(name).suffix]
    path = tmp_path / name
    raw = text.encode(encoding)
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    with pytest.raises(InputError, match=f"looks like {says}, ") as caught:
        read(path)
    command = str(caught.value).partition("converts it: ")[2].removesuffix(".")
    subprocess.run(command, shell=True, check=True)
    corpus = read(path.with_suffix("") if name.endswith(".gz") else path)
    assert sorted(corpus.train + corpus.validation) == sorted(stories)


def test_bytes_of_no_likely_encoding_are_not_guessed_at(tmp_path):
    (tmp_path / "a.txt").write_bytes("日本語の文章です。".encode("shift-jis") * 9)
    with pytest.raises(InputError, match=r"holds a byte 0x\w\w\.$"):
        read(tmp_path / "a.txt")


def test_a_byte_order_mark_is_in_no_story(tmp_path):
    stories = "\ufeff" + "\n<|endoftext|>\n\ufeff".join(STORIES)
    (tmp_path / "a.txt").write_text(stories)  # as where files were joined
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{s}"\n' for s in STORIES), "utf-8-sig")
    lines = "".join(json.dumps({"text": story}) + "\n" for story in STORIES)
    (tmp_path / "a.jsonl").write_text(lines, "utf-8-sig")
    for name in ("a.txt", "a.csv", "a.jsonl"):
        corpus = read(tmp_path / name)
        assert sorted(corpus.train + corpus.validation) == sorted(STORIES)


def test_a_separator_may_lie_across_two_blocks_of_reading(tmp_path):
    long = "x" * ((1 << 20) - 6)
    write_txt(tmp_path / "train.txt", [long, "short"])
    write_txt(tmp_path / "valid.txt", ["other"])
    assert read(tmp_path).train == [long, "short"]


def test_a_long_document_is_looked_through_a_few_times_only(tmp_path):
    path = write_txt(tmp_path / "play.txt", ["A line of a play.\n" * (1 << 20)])
    looked_through = 0

    def count(frame: object, event: str, called: Any) -> None:
        nonlocal looked_through
        if event == "c_call" and called.__name__ == "split":
            looked_through += len(called.__self__)

    sys.setprofile(count)
    try:
        read(path)
    finally:
        sys.setprofile(None)
    assert path.stat().st_size <= looked_through < 4 * path.stat().st_size


def test_real_stories_are_all_read(shared_data):
    read_back = read(shared_data / "tinystories")
    assert len(read_back.train) == 14_198
    assert len(read_back.validation) == 700
    assert read_back.train[0].startswith("Once upon a time, there was a chubby cat named Kitty.")


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train.txt", "valid.txt"),
        ("train.txt", "val.txt"),
        ("train.txt", "test.txt"),
        ("data/train-00000-of-00001.txt", "data/validation-00000-of-00001.txt"),
        ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"),
        ("stories.txt", "dev_set.txt"),
        ("constraint.txt", "valid.txt"),
    ],
)
def test_file_names_decide_the_split(tmp_path, train, validation):
    write_txt(tmp_path / train, ["for training"])
    write_txt(tmp_path / validation, ["for validation"])
    assert read(tmp_path).train == ["for training"]
    assert read(tmp_path).validation == ["for validation"]


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train/1.txt", "validation/1.txt"),
        ("Train/1.txt", "VALID/1.TXT"),
        ("a/training/deep/1.txt", "a/dev/deep/1.txt"),
        ("data/train.txt", "data/held/val/part.txt"),
        ("train-and-test/train.txt", "train-and-test/test.txt"),
        ("stories/1.txt", "test/1.txt"),
        ("train/train-1.txt", "Testing.txt"),
    ],
)
def test_names_of_folders_decide_the_split_too(tmp_path, train, validation):
    write_txt(tmp_path / train, ["for training", "more of it"])
    write_txt(tmp_path / validation, ["for validation"])
    corpus = read(tmp_path)
    assert corpus.train == ["for training", "more of it"]
    assert corpus.validation == ["for validation"]
    assert (corpus.origin.train, corpus.origin.validation) == ([train], [validation])
    assert corpus.origin.cut == ""


def test_only_names_below_the_given_path_decide(tmp_path):
    write_txt(tmp_path / "test" / "val" / "stories.txt", STORIES)
    given = read(tmp_path / "test" / "val")
    assert sorted(given.train + given.validation) == sorted(STORIES)
    assert given.origin.cut == "by hash"


def test_a_test_split_never_trains_and_validates_only_where_nothing_else_does(tmp_path):
    for name in ("train", "validation", "test"):
        write_txt(tmp_path / name / "1.txt", [f"for {name}"])
    corpus = read(tmp_path)
    assert (corpus.train, corpus.validation) == (["for train"], ["for validation"])
    assert corpus.origin.unread == ["test/1.txt"]
    for name in ("test.txt", "Valid.txt"):
        alone = write_txt(tmp_path / name, STORIES)
        with pytest.raises(InputError, match=r"by its name it is for (test|validation)"):
            read(alone)


@pytest.mark.parametrize("name", ["train/test.txt", "test/train.txt", "train-and-test.txt"])
def test_a_file_of_two_splits_is_refused(tmp_path, name):
    write_txt(tmp_path / name, STORIES)
    with pytest.raises(InputError, match=r"must be of one split, but names say test and train"):
        read(tmp_path)


def test_what_is_not_read_is_listed_and_what_is_about_the_data_is_no_story(tmp_path):
    for name in ("UPPER.TXT", "README.txt", "LICENSE.txt", "notes.md", "deep/image.png"):
        write_txt(tmp_path / name, [*STORIES, name])
    write_txt(tmp_path / ".hidden" / "x.txt", STORIES)
    corpus = read(tmp_path)
    assert corpus.origin.train == ["UPPER.TXT"]
    assert corpus.origin.unread == ["LICENSE.txt", "README.txt", "deep/image.png", "notes.md"]
    assert "README.txt" not in corpus.train + corpus.validation


def test_files_that_say_nothing_are_left_alone_beside_one_that_says_train(tmp_path):
    for name in ("train.txt", "valid.txt", "test.txt", "notes.txt", "README.md", ".cache/x.txt"):
        write_txt(tmp_path / name, [name])
    assert read(tmp_path).train == ["train.txt"]
    assert read(tmp_path).validation == ["valid.txt"]


def test_training_stories_that_are_validation_stories_are_dropped(tmp_path):
    write_txt(tmp_path / "train.txt", ["a", "b", " c\n", "b", "d"])
    write_txt(tmp_path / "valid.txt", ["b", "c", "e"])
    assert read(tmp_path).train == ["a", "d"]
    assert read(tmp_path).validation == ["b", "c", "e"]


def test_copies_of_a_story_never_end_up_on_both_sides():
    stories = STORIES * 3
    random.Random(0).shuffle(stories)
    train, validation = split_by_hash(stories, None)
    assert sorted(train + validation) == sorted(stories)
    assert not set(train) & set(validation)


def test_the_split_of_a_story_depends_on_its_text_alone():
    _, validation = split_by_hash(STORIES, None)
    _, of_reversed = split_by_hash(reversed(STORIES), None)
    assert set(validation) == set(of_reversed)


def test_about_one_story_in_twenty_validates():
    train, validation = split_by_hash((str(number) for number in range(20_000)), None)
    assert len(train) + len(validation) == 20_000
    standard_deviation = math.sqrt(20_000 * 0.05 * 0.95)
    assert abs(len(validation) - 1_000) < 4 * standard_deviation


@pytest.mark.parametrize("count", range(2, 12))
def test_at_least_one_story_validates(count):
    train, validation = split_by_hash(STORIES[:count], None)
    assert train
    assert validation


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_max_stories_limits_the_training_stories(tmp_path, suffix):
    write = {".txt": write_txt, ".jsonl": write_jsonl, ".parquet": write_parquet}[suffix]
    path = write(tmp_path / f"a{suffix}", STORIES)
    whole, limited = read(path), read(path, max_stories=20)
    assert limited.train == whole.train[:20]
    assert limited.validation == whole.validation[: len(limited.validation)]


def test_a_limit_ends_the_reading(tmp_path):
    (tmp_path / "train.txt").write_bytes(
        b"a<|endoftext|>b<|endoftext|>" + b"c" * (2 << 20) + b"\xff no UTF-8"
    )
    write_txt(tmp_path / "valid.txt", ["d"])
    assert read(tmp_path, max_stories=2).train == ["a", "b"]


def test_the_built_in_corpus_knows_the_probability_of_every_validation_story():
    told = read("built-in", max_stories=50)
    assert told.kind == "built-in"
    assert len(told.train) == 50
    assert len(told.validation) == 500
    assert "NOT TinyStories" in told.notice
    for text, nats in zip(told.validation[:20], told.validation_nats, strict=False):
        assert [nats] == pytest.approx(parses(text))


def test_the_built_in_corpus_is_always_the_same_and_shares_no_story_between_splits():
    first, second = (read("built-in", max_stories=2_000) for _ in range(2))
    assert first == second
    assert not set(first.train) & set(first.validation)
    assert len(set(first.train)) == len(first.train)


def test_the_built_in_corpus_has_twenty_thousand_stories_unless_limited():
    assert corpus.BUILT_IN_STORIES == 20_000


def test_an_identity_changes_with_a_file_and_with_the_limit(tmp_path):
    path = write_txt(tmp_path / "a.txt", STORIES)
    data = DataConfig(source=str(path))
    before = identity(data)
    assert identity(data) == before
    assert identity(data.model_copy(update={"max_stories": 5})) != before
    write_txt(path, [*STORIES, "another"])
    assert identity(data) != before


def test_progress_is_told_every_two_seconds_only():
    lines: list[str] = []
    never = corpus.throttled(lines.append, seconds=3600)
    always = corpus.throttled(lines.append, seconds=0)
    never("nothing")
    always("something")
    assert lines == ["something"]


def folder_without_text(path: Path) -> Path:
    (path / "image.png").write_bytes(b"\x89PNG")
    return path


def folder_that_only_validates(path: Path) -> Path:
    write_txt(path / "valid.txt", STORIES)
    return path


def file_of(name: str, content: bytes):
    def make(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere", "must be auto, .* built-in, or a file or folder"),
        (lambda path: path / ("x" * 300), "must be readable, but: File name too long"),
        (folder_without_text, r"must hold \.txt, .* or \.parquet files, but there are none"),
        (folder_that_only_validates, r"only validate: valid\.txt"),
        (file_of("a.doc", b"text\nx\n"), r"must be a \.txt, .* or \.parquet file"),
        (file_of("a.csv", b"text\nx\n"), "at least two different stories"),
        (file_of("a.txt", b"x"), "at least two different stories"),
        (file_of("a.txt", b""), "at least two different stories"),
        (file_of("a.txt", b" \n<|endoftext|>\n"), "at least two different stories"),
        (file_of("a.txt", b"one<|endoftext|>one"), "at least two different stories"),
        (file_of("a.txt", b"\x7fELF\x00\x00"), "must be UTF-8 text, but holds a zero byte"),
        (file_of("a.txt", "café".encode("latin-1")), "must be UTF-8 text, but holds a byte 0xe9"),
        (file_of("a.jsonl", b""), "at least two different stories"),
        (
            file_of("a.jsonl", b'{"a": "x", "b": "y"}\n'),
            r"column text, .* but has: a, b; .*--column",
        ),
        (file_of("a.jsonl", b'{"text": 3}\n'), "line 1 holds 3"),
        (file_of("a.json", b'[{"text": "x"}, {"text": ["y"]}]'), r"record 2 holds \['y'\]"),
        (file_of("a.json", b"[1"), "must be a JSON array, but"),
        (file_of("a.csv", b"id,text\n1,x\n2\n"), "2 fields in each line, .* line 3 has another"),
        (file_of("a.csv", b'text\n"x\n'), r"must be a \.csv file, but: unexpected end of data"),
        (file_of("a.txt.gz", gzip.compress(b"x")[:10] + b"\xff" * 9), "must be readable, but: "),
        (file_of("a.txt.gz", b"no archive"), "must be readable, but: Not a gzipped file"),
        (file_of("a.txt.zst", b"no archive"), "must be readable, but: ZSTD"),
        (file_of("a.jsonl", b'{"text": 3}\n'), "must hold strings in its column text"),
        (file_of("a.jsonl", b"no json\n"), r"must be a \.jsonl file"),
        (file_of("a.jsonl", b"\x7fELF\x00\x00\xff"), "must be UTF-8 text, but line 1"),
        (file_of("a.parquet", b"PAR1"), r"must be a \.parquet file"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, make, message):
    with pytest.raises(InputError, match=message) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_reading_says_how_much_of_what_is_wanted_has_come(monkeypatch):
    monkeypatch.setattr(corpus, "throttled", lambda progress: progress)  # every message
    said: list[str] = []
    stories = map(str, range(300))
    assert len(list(corpus._counted(stories, "my stories", said.append, total=512))) == 300
    assert said == [
        "reading my stories: 0 of 512 stories (0%)",
        "reading my stories: 256 of 512 stories (50%)",
    ]
    list(corpus._counted(["one"], "my stories", said.append))
    assert said[-1] == "reading my stories: 0 stories"  # nobody knows how many are in a file
