"""The words of the built-in stories, with their probabilities.

An `Options` refuses texts of which one is the beginning of another: that alone makes the derivation
of every story unique. Add a word by adding it to a list.
"""

import hashlib
import math
import random
from bisect import bisect
from collections.abc import Mapping
from functools import cache, cached_property
from itertools import accumulate, pairwise


class Options:
    """A choice of one text, each with a positive weight."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        for first, second in pairwise(sorted(weights)):
            if second.startswith(first):
                raise ValueError(f"no option may begin another, but {first!r} begins {second!r}")
        self.weights = dict(weights)

    @cached_property
    def _texts(self) -> list[str]:
        return list(self.weights)

    @cached_property
    def _cumulative(self) -> list[float]:
        return list(accumulate(self.weights.values()))

    def draw(self, rng: random.Random) -> str:
        """Draw one text; uses nothing of `rng` but random(), the same in every Python."""
        point = rng.random() * self._cumulative[-1]
        return self._texts[bisect(self._cumulative, point, hi=len(self._texts) - 1)]

    def nats(self, text: str) -> float:
        """Minus the natural logarithm of the probability of one of the texts."""
        return -math.log(self.weights[text] / self._cumulative[-1])

    def without(self, *texts: str) -> "Options":
        """Return the same options and weights without some of them."""
        rest = Options.__new__(Options)  # a part of prefix-free options is prefix-free: no check
        rest.weights = {text: w for text, w in self.weights.items() if text not in texts}
        return rest

    @cached_property
    def with_article(self) -> "Options":
        """The same options, each after its "a" or "an"."""
        return Options({a(text): weight for text, weight in self.weights.items()})


def a(text: str) -> str:
    """Prefix a text with its indefinite article."""
    return ("an " if text[0] in "aeiou" or text.startswith("honest") else "a ") + text


def words(text: str, slope: float = 0.5) -> Options:
    """Make options of a comma-separated list; the weight of the n-th is n ** -slope (Zipf)."""
    return Options({word.strip(): n**-slope for n, word in enumerate(text.split(","), start=1)})


@cache
def taste(head: str, options: Options, slope: float = 1.2) -> Options:
    """Order options by the preference of `head`, the best first: a table to memorise.

    The order comes from a hash, so it is the same everywhere and has no pattern to be guessed.
    """

    def dislike(text: str) -> bytes:
        return hashlib.sha256(f"{head} {text}".encode()).digest()

    liked = sorted(options.weights, key=dislike)
    return Options({text: n**-slope for n, text in enumerate(liked, start=1)})


GIRLS = words(
    "Mia, Nora, Ivy, Tess, Hazel, Pearl, Olive, Dora, June, Alma, Cora, Flora, Greta, Hilda, "
    "Lotte, Polly, Rosa, Stella, Willa, Zelda, Fern, Maud, Ada, Bess, Dot, Etta, Kitty, Mabel, "
    "Nell, Opal"
)
BOYS = words(
    "Rex, Otto, Finn, Hugo, Max, Theo, Arlo, Basil, Cyril, Dexter, Felix, Gus, Hank, Igor, "
    "Jasper, Kurt, Leo, Milo, Ned, Oscar, Percy, Ralph, Toby, Walter, Amos, Bruno, Chester, "
    "Duncan, Eli, Pip"
)
NAMES = Options({**GIRLS.weights, **BOYS.weights})

KINDS = words(
    "girl, boy, goat, hen, mouse, fox, bear, frog, duck, pig, cat, dog, rabbit, hedgehog, badger, "
    "squirrel, otter, turtle, donkey, pony, goose, lamb, mole, beaver, crow, owl, snail, toad, "
    "yak, wolf"
)
ANIMALS = KINDS.without("girl", "boy")

WARM = words(
    "kind, gentle, generous, friendly, helpful, thoughtful, cheerful, patient, honest, loyal"
)
COLD = words("greedy, selfish, grumpy, stingy, proud, bossy, vain, lazy, rude, sulky")
TRAITS = Options({**WARM.weights, **COLD.weights})

MOODS = words(  # of strangers
    "sleepy, jolly, plump, elderly, hungry, tall, muddy, clever, quick, merry, curious, silly, "
    "busy, famous, polite, noisy, giggly, nervous, lucky, fluffy, dizzy, puzzled, wise, barefoot, "
    "gloomy, bashful, chubby, dreamy, shaggy, daring"
)

LOOKS = words(
    "red, blue, green, yellow, golden, silver, shiny, old, striped, spotted, tiny, painted, "
    "dusty, white, purple, orange, brown, gray, fancy, plain, odd, pink, lovely, new"
)
THINGS = words(
    "kite, drum, bell, lantern, button, ribbon, spoon, teapot, whistle, pillow, marble, blanket, "
    "hat, boat, mirror, candle, feather, pebble, shell, cup, basket, broom, umbrella, apron, "
    "scarf, mitten, puppet, flute, book, map, key, rope, jar, clock, ring, coin, crown, trumpet, "
    "lamp, bucket, parasol, ladle, violin, locket, magnet, compass, saddle, trowel, thimble, "
    "toothbrush"
)
CLOTHES = words("hat, scarf, coat, cape, vest, bonnet, apron, shawl, belt, sweater")

SINGULAR = {  # several: one
    "pears": "pear", "plums": "plum", "apples": "apple", "berries": "berry", "cherries": "cherry",
    "nuts": "nut", "buns": "bun", "cookies": "cookie", "muffins": "muffin", "carrots": "carrot",
    "tarts": "tart", "figs": "fig", "peaches": "peach", "radishes": "radish", "acorns": "acorn",
    "pancakes": "pancake",
}  # fmt: skip
FOODS = words(", ".join(SINGULAR))
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

HOMES = words(
    "by the river, on the hill, in the valley, near the harbor, under the cliff, beside the lake, "
    "behind the church, above the bakery, at the crossroads, in the meadow, on the island, by the "
    "sea, near the windmill, beside the railway, in the village, at the castle"
)
SPOTS = words(
    "under the bench, behind the barn, inside the hollow tree, in the well, beneath the bridge, "
    "under the stairs, behind the curtain, in the haystack, beside the pump, under the cabbages, "
    "inside the oven, behind the piano, in the wagon, between the rocks, in the attic, beneath "
    "the rug"
)
STRETCHES = words(
    "over the hill, through the wood, across the bridge, past the mill, around the pond, along "
    "the hedge, over the wall, through the tunnel, across the field, past the chapel, around the "
    "haystack, along the stream, over the stile, through the orchard, across the square, past the "
    "forge"
)

WEATHERS = words(
    "windy, sunny, rainy, foggy, snowy, frosty, misty, cloudy, chilly, breezy, stormy, mild, "
    "hazy, dreary"
)
DAYS = words(
    "morning, afternoon, Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    slope=0.3,
)
CHORUS = words(
    "robins, crickets, leaves, clouds, geese, sparrows, shadows, swallows, beetles, branches, "
    "doves, chickens, snowflakes, puppies, daisies, bells, kittens, ducklings, fireflies, pinecones"
)
SINGING = words(
    "sang, whispered, chattered, danced, hummed, giggled, rustled, waited, murmured, dozed, "
    "swayed, twirled, grumbled, wobbled, tumbled, trembled, napped, glittered, paraded, shivered"
)
STAGE = words(
    "in the reeds, on the roofs, among the nettles, above the chimneys, beside the brook, near "
    "the willows, around the clover, along the fence, on the steps, between the cottages, at the "
    "market, by the gate"
)

OPENERS = Options({"Once upon a time": 4, "Long ago": 2, "Many years ago": 1, "Far away": 1})
EVENINGS = words("Before dark, By supper time, At sunset, By evening, At last")
HARVEST = words("two, three, four, five")
SPEEDS = words("faster, slower", slope=0.3)
PLURAL_CLOTHES = {c: c + ("es" if c == "scarf" else "s") for c in CLOTHES.weights} | {
    "scarf": "scarves"
}
