"""The built-in corpus: a seeded grammar of children's stories with exact probabilities.

A story is a generator (stories.py beside this file) that yields text and choices. It is sampled by
drawing every choice; tests parse it by finding the choices that spell a text. The options of a
choice are prefix-free, so a text has at most one derivation and its probability is exact: the mean
of `nats` is the entropy of the corpus, the lowest cross-entropy that any model can reach.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from gpt.data.grammar.lexicon import Options
from gpt.data.grammar.stories import story


class Story(NamedTuple):
    """A text, and minus the natural logarithm of its probability."""

    text: str
    nats: float


def sample_story(rng: random.Random) -> Story:
    """Draw one story; the same one for the same state of `rng`, in every Python."""
    script = story()
    pieces: list[str] = []
    nats = 0.0
    step = next(script)
    try:
        while True:
            if isinstance(step, Options):
                piece = step.draw(rng)
                nats += step.nats(piece)
            else:
                piece = step
            pieces.append(piece)
            step = script.send(piece)
    except StopIteration:
        return Story("".join(pieces), nats)


def stories(seed: int, count: int) -> Iterator[Story]:
    """Draw distinct stories: `count` of them, the same ones for the same seed."""
    rng = random.Random(seed)
    drawn: set[str] = set()
    while len(drawn) < count:
        story = sample_story(rng)
        if story.text not in drawn:
            drawn.add(story.text)
            yield story
