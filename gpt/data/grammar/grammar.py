"""The built-in corpus: a seeded grammar of children's stories that knows the probability of each.

A story is a generator (stories.py beside this file) that yields what it says and where it chooses.
Here it is told, by drawing every choice, and read back, by finding the choices that spell a text.
The options of a choice are prefix-free, so a text has at most one reading and its probability is
exact: the mean of `nats` is the entropy of the corpus, the lowest cross-entropy that any model can
reach.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from gpt.data.grammar.lexicon import Options
from gpt.data.grammar.stories import story
from gpt.errors import InputError


class Story(NamedTuple):
    """A text, and minus the natural logarithm of the probability with which it is told."""

    text: str
    nats: float


def tell(rng: random.Random) -> Story:
    """Draw one story; the same one for the same state of `rng`, in every Python."""
    telling = story()
    said: list[str] = []
    nats = 0.0
    step = next(telling)
    try:
        while True:
            if isinstance(step, Options):
                piece = step.draw(rng)
                nats += step.nats(piece)
            else:
                piece = step
            said.append(piece)
            step = telling.send(piece)
    except StopIteration:
        return Story("".join(said), nats)


def stories(seed: int, count: int) -> Iterator[Story]:
    """Draw distinct stories: `count` of them, the same ones for the same seed."""
    rng = random.Random(seed)
    told: set[str] = set()
    while len(told) < count:
        story = tell(rng)
        if story.text not in told:
            told.add(story.text)
            yield story


def parses(text: str) -> list[float]:
    """The nats of every derivation that spells the text: one for a story, none for other text."""
    telling = story()
    position, nats = 0, 0.0
    step = next(telling)
    try:
        while True:
            if isinstance(step, Options):
                piece = step.match(text, position)
                if piece is None:
                    return []
                nats += step.nats(piece)
            elif text.startswith(step, position):
                piece = step
            else:
                return []
            position += len(piece)
            step = telling.send(piece)
    except StopIteration:
        return [nats] if position == len(text) else []


def nats(text: str) -> float:
    """Minus the natural logarithm of the probability with which a story is told.

    Raises:
        InputError: the text is no story of the grammar.
    """
    found = parses(text)
    if not found:
        raise InputError(
            f"the text must be a story of the built-in grammar, but got {text[:40]!r}; "
            f"gpt.data.grammar.grammar.stories tells some."
        )
    return found[0]
