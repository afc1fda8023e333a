"""The built-in corpus: every story has one parse, with the probability it was told with."""

import hashlib
import math
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt import lexicon as lex
from gpt.errors import InputError
from gpt.grammar import nats, parses, stories, tell
from gpt.lexicon import Options

PRETOKEN = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")
SAMPLE = list(stories(seed=1, count=2000))


def test_every_story_has_one_parse_with_the_probability_it_was_told_with():
    for story in SAMPLE:
        assert parses(story.text) == [pytest.approx(story.nats, rel=1e-12)]


@given(st.integers(min_value=0))
def test_a_story_of_any_seed_is_scored_as_it_was_told(seed: int):
    story = tell(random.Random(seed))
    assert nats(story.text) == pytest.approx(story.nats, rel=1e-12)


def test_the_same_seed_tells_the_same_story_in_every_python():
    text = tell(random.Random(0)).text
    assert hashlib.sha256(text.encode()).hexdigest().startswith("e486eb05c450768e"), text


def test_stories_are_distinct_and_another_seed_tells_others():
    texts = {story.text for story in SAMPLE}
    assert len(texts) == len(SAMPLE)
    assert not texts & {story.text for story in stories(seed=2, count=500)}


def test_there_are_far_more_than_twenty_thousand_stories():
    # exp(entropy) stories would have to be equally likely to reach this entropy
    assert math.exp(sum(story.nats for story in SAMPLE) / len(SAMPLE)) > 1e15


def test_every_story_fits_a_block_of_128_tokens():
    # a byte-level BPE of the corpus has about one token for each of these pieces
    longest = max(len(PRETOKEN.findall(story.text)) for story in SAMPLE)
    assert longest <= 127


def test_the_vocabulary_has_several_hundred_words():
    words = {word for story in SAMPLE for word in re.findall(r"[a-z]+", story.text.lower())}
    assert 400 <= len(words) <= 1200


def test_a_text_that_is_no_story_is_refused():
    text = SAMPLE[0].text
    for wrong in ("", "Once upon a time", text + " ", text[:-1], text.replace(" ", "  ", 1)):
        with pytest.raises(InputError, match="story of the built-in grammar"):
            nats(wrong)


def test_options_refuse_a_text_that_begins_another():
    with pytest.raises(ValueError, match="'cat' begins 'catfish'"):
        Options({"catfish": 1.0, "dog": 1.0, "cat": 1.0})


def test_options_are_drawn_as_often_as_their_weights_say():
    options, rng = Options({"a": 3.0, "b": 1.0}), random.Random(0)
    drawn = Counter(options.draw(rng) for _ in range(10_000))
    assert drawn["a"] / 10_000 == pytest.approx(0.75, abs=0.02)  # more than four standard errors
    assert options.nats("b") == pytest.approx(math.log(4))


@pytest.mark.parametrize("name", [n for n, v in vars(lex).items() if isinstance(v, Options)])
def test_probabilities_of_the_options_sum_to_one(name: str):
    options: Options = getattr(lex, name)
    assert sum(math.exp(-options.nats(text)) for text in options.weights) == pytest.approx(1.0)


def test_articles_agree_with_the_word_after_them():
    for story in SAMPLE:
        for article, word in re.findall(r"\b([Aa]n?) ([a-z]+)", story.text):
            vowel = word[0] in "aeiou" or word.startswith("honest")
            assert (article.lower() == "an") == vowel, story.text


def test_sentences_begin_with_a_capital_and_quotes_are_closed():
    for story in SAMPLE:
        assert story.text.count('"') % 2 == 0, story.text
        assert not re.search(r"[.!?] [a-z]", re.sub(r'"[^"]*"', '""', story.text)), story.text
        assert story.text[-1] in '."'


def test_one_thing_is_not_plural():
    for story in SAMPLE:
        for number, food in re.findall(
            r"\b(no|one|two|three|four|five|six|seven) ([a-z]+)", story.text
        ):
            if food in lex.SINGULAR or food in lex.SINGULAR.values():
                assert (food in lex.SINGULAR.values()) == (number == "one"), story.text


def test_a_possessive_agrees_with_the_name_before_it():
    for story in SAMPLE:
        for name, his in re.findall(r"([A-Z][a-z]+) (?:lost|dropped|hid) (his|her) ", story.text):
            assert (his == "her") == (name in lex.GIRLS.weights), story.text


def test_what_was_hidden_is_found_where_it_was_hidden():
    found = 0
    for story in SAMPLE:
        for thing, spot in re.findall(
            r"Where is your ([a-z ]+)\?.*found it ([a-z ]+)\. ", story.text
        ):
            assert f" {thing} {spot}" in story.text
            found += 1
    assert found > 20


def test_friends_return_to_where_they_live():
    for story in SAMPLE:
        home = re.search(r" lived ([a-z ]+)\.", story.text)
        assert home
        assert f"were back {home[1]}." in story.text


def test_fruit_is_neither_lost_nor_made_by_asking():
    counted = 0
    for story in SAMPLE:
        picked = re.search(r" picked (\w+) [a-z]+, and \w+ picked (\w+) ", story.text)
        if not picked:
            continue
        total = sum(lex.NUMBERS.index(word) for word in picked.groups())
        for pair in re.findall(r"had (\w+) [a-z]+ and \w+ (?:still )?had (\w+) ", story.text):
            assert sum(lex.NUMBERS.index(word) for word in pair) == total, story.text
            counted += 1
    assert counted > 50
