"""Stories of the built-in grammar, parsed: the choices that spell a text are found again."""

from gpt.data.grammar.lexicon import Options
from gpt.data.grammar.stories import story


def parses(text: str) -> list[float]:
    """List the nats of every derivation of a text: one for a story, none for other text."""
    script = story()
    position, nats = 0, 0.0
    step = next(script)
    try:
        while True:
            options = step.weights if isinstance(step, Options) else (step,)
            piece = next((one for one in options if text.startswith(one, position)), None)
            if piece is None:
                return []
            nats += step.nats(piece) if isinstance(step, Options) else 0.0
            position += len(piece)
            step = script.send(piece)
    except StopIteration:
        return [nats] if position == len(text) else []
