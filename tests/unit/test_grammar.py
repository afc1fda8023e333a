"""The built-in corpus: every story has one parse, with the probability it was told with."""

import hashlib
import math
import random
import re
from collections import Counter
from contextlib import suppress
from functools import cache
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsed_stories import parses

from gpt.data.grammar import lexicon as lex
from gpt.data.grammar import stories as plots
from gpt.data.grammar.grammar import Story, sample_story, stories
from gpt.data.grammar.lexicon import Options

PRETOKEN = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")
WARM, COLD = "|".join(lex.WARM.weights), "|".join(lex.COLD.weights)


@cache
def sample() -> list[Story]:
    return list(stories(seed=1, count=4000))


def derivations(text: str, chosen: tuple[str, ...] = ()) -> int:
    """How many derivations spell the text, by trying every option of every choice."""
    telling, position, n_choices, told = plots.story(), 0, 0, ""
    while True:
        try:
            step = telling.send(told) if told else next(telling)
        except StopIteration:
            return int(position == len(text))
        if isinstance(step, Options):
            if n_choices == len(chosen):
                fitting = [o for o in step.weights if text.startswith(o, position)]
                return sum(derivations(text, (*chosen, o)) for o in fitting)
            told, n_choices = chosen[n_choices], n_choices + 1
        else:
            told = step
        if not text.startswith(told, position):
            return 0
        position += len(told)


def trait_of(name: str, text: str) -> str:
    """The trait with which the story introduced a friend."""
    found = re.search(rf"an? (\w+) \w+ named {name}\b", text)
    assert found, text
    return found[1]


def test_every_story_has_one_parse_with_the_probability_it_was_told_with():
    for story in sample()[:1000]:
        assert parses(story.text) == [pytest.approx(story.nats, rel=1e-12)]


def test_trying_every_option_finds_no_second_derivation():
    assert all(derivations(story.text) == 1 for story in sample()[:60])


def test_at_every_choice_options_are_prefix_free_and_their_probabilities_sum_to_one():
    for seed in range(60):
        rng, telling, told = random.Random(seed), plots.story(), ""
        with suppress(StopIteration):
            while True:
                step = telling.send(told) if told else next(telling)
                told = step if isinstance(step, str) else step.draw(rng)
                if isinstance(step, Options):
                    texts = sorted(step.weights)
                    assert not any(b.startswith(a) for a, b in pairwise(texts))
                    total = sum(math.exp(-step.nats(text)) for text in texts)
                    assert total == pytest.approx(1.0, abs=1e-12)


@given(st.integers(min_value=0))
def test_a_story_of_any_seed_is_scored_as_it_was_told(seed: int):
    story = sample_story(random.Random(seed))
    assert parses(story.text) == [pytest.approx(story.nats, rel=1e-12)]


def test_the_same_seed_tells_the_same_story_in_every_python():
    text = sample_story(random.Random(0)).text
    assert hashlib.sha256(text.encode()).hexdigest().startswith("e6e9b1e5b7036ba2"), text


def test_stories_are_distinct_and_another_seed_tells_others():
    texts = {story.text for story in sample()}
    assert len(texts) == len(sample())
    assert not texts & {story.text for story in stories(seed=2, count=500)}


def test_there_are_far_more_than_twenty_thousand_stories():
    # exp(entropy) stories would have to be equally likely to reach this entropy
    assert math.exp(sum(story.nats for story in sample()) / len(sample())) > 1e15


def test_every_story_fits_a_block_of_128_tokens_with_room_for_rare_words():
    # a byte-level BPE of the corpus has about one token for each of these pieces
    lengths = [len(PRETOKEN.findall(story.text)) for story in sample()]
    assert max(lengths) <= 120
    assert 85 <= sum(lengths) / len(lengths) <= 110


def test_the_vocabulary_has_several_hundred_words():
    words = {word for story in sample() for word in re.findall(r"[a-z]+", story.text.lower())}
    assert 500 <= len(words) <= 900


def test_stories_open_as_often_as_their_weights_say():
    opened = Counter(story.text.partition(",")[0] for story in sample())
    total = sum(lex.OPENERS.weights.values())
    for opener, weight in lex.OPENERS.weights.items():
        share = weight / total
        error = math.sqrt(share * (1 - share) / len(sample()))
        assert abs(opened[opener] / len(sample()) - share) < 5 * error


def test_a_text_that_is_no_story_has_no_parse():
    text = sample()[0].text
    for wrong in ("", "Once upon a time", text + " ", text[:-1], text.replace(" ", "  ", 1)):
        assert parses(wrong) == []


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
    for story in sample():
        for article, word in re.findall(r"\b([Aa]n?) ([a-z]+)", story.text):
            vowel = word[0] in "aeiou" or word.startswith("honest")
            assert (article.lower() == "an") == vowel, story.text


def test_sentences_begin_with_a_capital_and_quotes_are_closed():
    for story in sample():
        assert story.text.count('"') % 2 == 0, story.text
        assert not re.search(r"[.!?] [a-z]", re.sub(r'"[^"]*"', '""', story.text)), story.text
        assert story.text[-1] in '."'


def test_one_thing_is_not_plural():
    for story in sample():
        for number, food in re.findall(
            r"\b(no|one|two|three|four|five|six|seven) ([a-z]+)", story.text
        ):
            if food in lex.SINGULAR or food in lex.SINGULAR.values():
                assert (food in lex.SINGULAR.values()) == (number == "one"), story.text


def test_a_possessive_agrees_with_the_name_before_it():
    for story in sample():
        for name, his in re.findall(r"([A-Z][a-z]+) (?:lost|dropped|hid) (his|her) ", story.text):
            assert (his == "her") == (name in lex.GIRLS.weights), story.text


def test_what_was_hidden_is_found_where_it_was_hidden():
    found = 0
    for story in sample():
        for thing, spot in re.findall(
            r"Where is your ([a-z ]+)\?.*found it ([a-z ]+)\. ", story.text
        ):
            assert f" {thing} {spot}" in story.text
            found += 1
    assert found > 20


def test_friends_return_to_where_they_live():
    for story in sample():
        home = re.search(r" lived ([a-z ]+)\.", story.text)
        assert home
        assert f"were back {home[1]}." in story.text


def test_fruit_is_neither_lost_nor_made_by_asking():
    counted = 0
    for story in sample():
        text = re.sub(r"\bnone\b", "no", story.text)
        picked = re.search(r"(\w+) picked (\w+) [a-z]+, and (\w+) picked (\w+) ", text)
        if not picked:
            continue
        hero, first, pal, second = picked.groups()
        count = {hero: lex.NUMBERS.index(first), pal: lex.NUMBERS.index(second)}
        for wish, asker, answer, giver, *had in re.findall(
            r'have (\w+) \w+\?" asked (\w+)\. "(Of course|Never)!" said (\w+), '
            r"so \w+ had (\w+) \w+ and \w+ had (\w+)\.",
            text,
        ):
            given = lex.NUMBERS.index(wish) if answer == "Of course" else 0
            count[asker] += given
            count[giver] -= given
            assert had == [lex.NUMBERS[count[asker]], lex.NUMBERS[count[giver]]], text
            counted += 1
    assert counted > 300


@pytest.mark.parametrize(
    ("warm", "cold"),
    [
        (r'"Of course!" said (\w+)', r'"Never!" said (\w+)'),
        (r'"I am coming!" said (\w+)', r'"I am busy," said (\w+)'),
        (r'"Here you are, \w+," said (\w+)', r'"Now it is mine," said (\w+)'),
        (r'"We can share it," said (\w+)', r'"It is all mine," said (\w+)'),
        (r'\?" asked \w+\. "[A-Z][a-z ]+ [a-z ]+!" said (\w+)', r'"I will not tell," said (\w+)'),
    ],
)
def test_an_early_trait_decides_a_late_answer(warm: str, cold: str):
    answers = Counter()
    for story in sample():
        if "gave a party" in story.text or ("Of course" not in warm and " picked " in story.text):
            continue
        for pattern, traits in ((warm, WARM), (cold, COLD)):
            for name in re.findall(pattern, story.text):
                assert re.fullmatch(traits, trait_of(name, story.text)), story.text
                answers[pattern] += 1
    assert min(answers[warm], answers[cold]) > 50


def test_the_moral_is_about_the_trait_and_the_kind_of_who_acted():
    told = 0
    for story in sample():
        for name, he, trait in re.findall(r"said (\w+)\. (She|He) was never so (\w+) ", story.text):
            assert trait_of(name, story.text) == trait
            assert (he == "She") == (name in lex.GIRLS.weights)
            told += 1
        for trait, kind in re.findall(r"(?:learned that|you are) an? (\w+) (\w+)", story.text):
            assert re.search(rf"\b{trait} {kind} named \w+", story.text)
            told += 1
    assert told > 1000


def test_a_girl_has_a_name_of_girls_and_a_boy_one_of_boys():
    for story in sample():
        for kind, name in re.findall(r"\b(girl|boy) named (\w+)", story.text):
            assert (kind == "girl") == (name in lex.GIRLS.weights)
        hero, his = re.findall(r"named (\w+) lived [a-z ]+\. (Her|His) friend", story.text)[0]
        assert (his == "Her") == (hero in lex.GIRLS.weights)


def test_the_way_back_is_the_way_there_reversed_past_what_was_lost():
    walks = 0
    for story in sample():
        walk = re.search(
            r"walked (.+), (.+), and (.+) to visit .* Somewhere (.+), \w+ lost \w+ ([a-z ]+)\. "
            r"They came back (.+?)\. ",
            story.text,
        )
        if walk:
            *way, where, thing, back = walk.groups()
            lay = f", where the {thing} lay"
            assert f"{where}{lay}" in back
            assert back.replace(lay, "") == f"{way[2]}, {way[1]}, and {way[0]}"
            walks += 1
    assert walks > 300


def test_guests_are_named_for_the_gift_that_they_gave():
    answers = 0
    for story in sample():
        gift_of = re.findall(
            r"(?:There|,|, and) (an? [a-z]+ [a-z]+|[A-Z]\w+) gave (?:her|him) an? (\w+ \w+)",
            story.text,
        )
        guests = {gift: re.sub("^an?", "The", guest) for guest, gift in gift_of}
        asked = r'"(?:Who gave you|And) the ([a-z ]+)\?"(?: asked \w+\.)? "([A-Za-z ]+)[,!]" said'
        for gift, answer in re.findall(asked, story.text):
            assert answer == (guests[gift] if " " in guests[gift] else "You did"), story.text
            answers += 1
    assert answers > 600


def test_the_race_is_won_and_lost_as_the_two_comparisons_say():
    races = 0
    for story in sample():
        text = story.text.replace("The ", "the ")
        end = re.search(r"So ([\w ]+) won the \w+ \w+, and ([\w ]+) came last\.", text)
        if not end:
            continue
        compared = r"(?:\. |, and )([\w ]+?) was (faster|slower) than ([\w ]+)"
        told = re.findall(compared, text)
        pairs = [(x, y) if than == "faster" else (y, x) for x, than, y in told]
        orders = [
            order
            for order in permutations({runner for pair in pairs for runner in pair})
            if all(order.index(x) < order.index(y) for x, y in pairs)
        ]
        assert [(order[0], order[2]) for order in orders] == [end.groups()], text
        races += 1
    assert races > 300


def test_everyone_wears_what_the_swaps_left_them():
    dressed = 0
    for story in sample():
        text = story.text.replace("The ", "the ")
        wore = re.findall(r", (?:and )?((?:an? )?[\w ]+?) wore an? (\w+) ", text)
        worn = {re.sub("^an? ", "the ", who): look for who, look in wore}
        if not worn:
            continue
        for one, two in re.findall(r"\. (?:Then )?([\w ]+?) swapped \w+ with ([\w ]+)", text):
            worn[one], worn[two] = worn[two], worn[one]
        end = re.search(
            r"So (.+?) wore the (\w+) \w+, (.+?) the (\w+) one, and (.+) the (\w+) one\.", text
        )
        assert end, text
        assert dict(zip(end.groups()[::2], end.groups()[1::2], strict=True)) == worn, text
        dressed += 1
    assert dressed > 300


def test_a_chain_of_swaps_is_made_in_the_order_opposite_to_the_wishes():
    chains = 0
    for story in sample():
        wished = re.search(r"wished for an? (\w+ \w+)", story.text)
        if wished:
            wanted = re.findall(r"wanted an? (\w+ \w+) for the (\w+ \w+)", story.text)
            (second, first), (third, second_again) = wanted
            assert (first, second_again) == (wished[1], second)
            made = f"{third}, swapped it for the {second}, and swapped that for the {first}."
            assert re.search(rf" had an? {made}", story.text), story.text
            chains += 1
    assert chains > 300
