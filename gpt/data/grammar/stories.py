"""The plots of the built-in stories: who they are about, what happens, and how it ends.

A plot is a generator: it yields the text that must come next, or the `Options` of which one is
chosen, and receives that text. Its state (who hid what, who has how many, who is kind) decides text
far away, so that a model must look back.

Add a plot: write a generator like `sharing` and enter it in PLOTS. A complete story stays within
120 words and marks, so that it fits a block of 128 tokens also where a rare word is two of them.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from gpt.data.grammar import lexicon as lex
from gpt.data.grammar.lexicon import Options, a, taste

T = TypeVar("T")
Script: TypeAlias = Generator[str | Options, str, T]


@dataclass(frozen=True)
class Character:
    """One of the two friends."""

    name: str
    trait: str
    kind: str

    @property
    def warm(self) -> bool:
        """True if this character gives, helps and answers; the others never do."""
        return self.trait in lex.WARM.weights

    @property
    def he(self) -> str:
        """The pronoun as a subject."""
        return "she" if self.name in lex.GIRLS.weights else "he"

    @property
    def him(self) -> str:
        """The pronoun as an object."""
        return "her" if self.name in lex.GIRLS.weights else "him"

    @property
    def his(self) -> str:
        """The pronoun as a possessive."""
        return "her" if self.name in lex.GIRLS.weights else "his"


@dataclass
class Cast:
    """The two friends, their home, and the words that the story has used up."""

    hero: Character
    pal: Character
    home: str  # with its preposition: "by the river"
    day: str = ""  # with its weather: "windy Monday"
    used: set[str] = field(default_factory=set)  # looks, things, moods and kinds appear once each

    def other(self, friend: Character) -> Character:
        """Return the friend of a friend."""
        return self.pal if friend is self.hero else self.hero

    def friend(self) -> Script[Character]:
        """Choose one of the two and say the name."""
        name = yield Options({self.hero.name: 2, self.pal.name: 1})
        return self.hero if name == self.hero.name else self.pal

    def fresh(self, options: Options) -> Script[str]:
        """Say one of the options that are not used up."""
        word = yield options.without(*self.used)
        self.used.add(word)
        return word

    def fresh_a(self, options: Options) -> Script[str]:
        """Say "a" or "an" and one of the options that are not used up; return that without it."""
        text = yield options.with_article.without(*map(a, self.used))
        word = text.partition(" ")[2]
        self.used.add(word)
        return word

    def a_thing(self) -> Script[str]:
        """Say "a red kite"; return "red kite"."""
        look = yield from self.fresh_a(lex.LOOKS)
        return (yield from self._noun(look, lex.THINGS))

    def own_thing(self, owner: Character) -> Script[str]:
        """Say "his red kite"; return "red kite"."""
        yield f"{owner.his} "
        look = yield from self.fresh(lex.LOOKS)
        return (yield from self._noun(look, lex.THINGS))

    def stranger(self) -> Script[str]:
        """Say "a sleepy owl"; return "the sleepy owl", its name from then on."""
        mood = yield from self.fresh_a(lex.MOODS)
        return "the " + (yield from self._noun(mood, lex.ANIMALS))

    def _noun(self, adjective: str, nouns: Options) -> Script[str]:
        yield " "
        noun = yield from self.fresh(taste(adjective, nouns))
        return f"{adjective} {noun}"


Deed: TypeAlias = Character | None  # who could choose to be kind: the moral is about them
Plot: TypeAlias = Callable[[Cast], Script[Deed]]


def capital(text: str) -> str:
    """Capitalise the first letter only."""
    return text[0].upper() + text[1:]


def several(count: int, foods: str) -> str:
    """Count foods in words: "no pears", "one pear", "two pears"."""
    return f"{lex.NUMBERS[count]} {lex.SINGULAR[foods] if count == 1 else foods}"


def sharing(cast: Cast) -> Script[Deed]:
    """Both pick fruit and ask for some: character decides who gives, counting who has what.

    Who is refused asks no more.
    """
    hero, pal = cast.hero, cast.pal
    first = lex.NUMBERS.index((yield lex.HARVEST))
    yield " "
    foods = yield lex.FOODS
    yield f", and {pal.name} picked "
    second = lex.NUMBERS.index((yield lex.HARVEST))
    yield f" {foods}. "
    count = {hero: first, pal: second}
    for _ in range(2):
        yield '"May I have '
        most = max(count.values())
        wish = yield Options({several(n, foods): 1 / n for n in (1, 2, 3) if n <= most})
        yield '?" asked '
        wanted = lex.NUMBERS.index(wish.split()[0])
        able = [f for f in (pal, hero) if count[cast.other(f)] >= wanted]
        name = yield Options({f.name: 1.0 for f in able})
        asker = pal if name == pal.name else hero
        giver = cast.other(asker)
        if giver.warm:
            count[giver] -= wanted
            count[asker] += wanted
        yield f'. "{"Of course" if giver.warm else "Never"}!" said {giver.name}, so {asker.name} '
        yield f"had {several(count[asker], foods)} and {giver.name} "
        left = lex.NUMBERS[count[giver]] if count[giver] else "none"
        yield f"had {left}. "
        if not giver.warm:
            break
    return giver


def hiding(cast: Cast) -> Script[Deed]:
    """Three things are hidden and one is asked for; its owner says where it is, or will not."""
    spots: dict[str, str] = {}
    owners: dict[str, Character] = {}
    owner = cast.hero
    for joint in (", ", ", and ", ". "):
        thing = yield from cast.own_thing(owner)
        owners[thing] = owner
        yield " "
        spots[thing] = yield from cast.fresh(lex.SPOTS)
        yield joint
        if joint == ", ":
            owner = cast.pal
            yield f"{owner.name} hid "
        elif joint == ", and ":
            owner = yield from cast.friend()
            yield " hid "
    questions = {
        f'"Where is your {thing}?" asked {cast.other(owner).name}. ': thing
        for thing, owner in owners.items()
    }
    thing = questions[(yield Options(dict.fromkeys(questions, 1.0)))]
    owner, spot = owners[thing], spots[thing]
    if owner.warm:
        yield f'"{capital(spot)}!" said {owner.name}. '
    else:
        yield f'"I will not tell," said {owner.name}, '
        yield f"but {cast.other(owner).name} found it {spot}. "
    return owner


def swapping(cast: Cast) -> Script[Deed]:
    """A wish comes true through two swaps, named in one order and made in the other."""
    hero, pal = cast.hero, cast.pal
    wish = yield from cast.a_thing()
    wanted = [wish]
    for joint in (", but ", ", and "):
        yield joint
        yield from cast.stranger()
        yield " wanted "
        wanted.append((yield from cast.a_thing()))
        yield f" for the {wanted[-2]}"
    first, second, third = wanted
    yield f". {pal.name} had {a(third)}, swapped it for the {second}, "
    yield f"and swapped that for the {first}. "
    yield f'"Here you are, {hero.name}' if pal.warm else '"Now it is mine'
    yield f'," said {pal.name}. '
    return pal


def walking(cast: Cast) -> Script[Deed]:
    """There and back again, in the opposite order, past the spot where something was lost."""
    way: list[str] = []
    for joint in ("", ", ", ", and "):
        yield joint
        way.append((yield lex.STRETCHES.without(*way)))
    yield " to visit "
    yield from cast.stranger()
    yield ". Somewhere "
    where = yield Options(dict.fromkeys(way, 1.0))
    yield ", "
    owner = yield from cast.friend()
    yield " lost "
    thing = yield from cast.own_thing(owner)
    yield ". They came back "
    back = [f"{s}, where the {thing} lay" if s == where else s for s in reversed(way)]
    yield f"{back[0]}, {back[1]}, and {back[2]}. "
    return None


def party(cast: Cast) -> Script[Deed]:
    """Three guests bring gifts, and the hero is asked who gave which."""
    hero, pal = cast.hero, cast.pal
    gifts: dict[str, str] = {}
    for joint in ("There ", ", ", ", and "):
        yield joint
        if joint == ", and ":
            yield pal.name
            guest = pal.name
        else:
            guest = yield from cast.stranger()
        yield f" gave {hero.him} "
        gifts[(yield from cast.a_thing())] = guest
    yield ". "
    for start, by in (('"Who gave you', f" asked {pal.name}."), ('"And', "")):
        questions = {f'{start} the {gift}?"{by} ': gift for gift in gifts}
        gift = questions[(yield Options(dict.fromkeys(questions, 1.0)))]
        guest = gifts.pop(gift)
        answer = "You did!" if guest == pal.name else f"{capital(guest)},"
        yield f'"{answer}" said {hero.name}. '
    return None


def racing(cast: Cast) -> Script[Deed]:
    """Two comparisons put three runners in order."""
    hero, pal = cast.hero, cast.pal
    stranger = yield from cast.stranger()
    yield " for "
    prize = yield from cast.a_thing()
    yield ". "
    runners = [hero.name, pal.name, stranger]
    starts = {capital(runner): runner for runner in runners}
    one = starts[(yield Options(dict.fromkeys(starts, 1.0)))]
    yield " was "
    than = yield lex.SPEEDS
    yield " than "
    two = yield Options(dict.fromkeys(runners, 1.0)).without(one)
    ahead, behind = (one, two) if than == "faster" else (two, one)
    third = next(runner for runner in runners if runner not in (one, two))
    yield f", and {third} was "
    order = [third, ahead, behind]
    if (yield lex.SPEEDS) == "slower":
        order = [ahead, behind, third]
    yield f" than {order[1]}. "
    yield f"So {order[0]} won the {prize}, and {order[2]} came last. "
    winner = next((friend for friend in (hero, pal) if friend.name == order[0]), None)
    if winner:
        yield '"We can share it' if winner.warm else '"It is all mine'
        yield f'," said {winner.name}. '
    return winner


def dressing(cast: Cast) -> Script[Deed]:
    """Three friends swap their clothes twice; the end lists who wears which."""
    wearers = [cast.hero.name, cast.pal.name]
    looks = [(yield from cast.fresh_a(lex.LOOKS))]
    yield " "
    clothes = yield lex.CLOTHES
    yield f", {wearers[1]} wore "
    looks.append((yield from cast.fresh_a(lex.LOOKS)))
    yield f" {clothes}, and "
    wearers.append((yield from cast.stranger()))
    yield " wore "
    looks.append((yield from cast.fresh_a(lex.LOOKS)))
    yield f" {clothes}. "
    worn = dict(zip(wearers, looks, strict=True))
    pairs = [(x, y) for x in wearers for y in wearers if x != y]
    last: set[str] = set()
    for joint in ("", "Then "):
        swaps = {}
        for x, y in pairs:
            if {x, y} != last:
                start = joint + x if joint else capital(x)
                swaps[f"{start} swapped {lex.PLURAL_CLOTHES[clothes]} with {y}. "] = (x, y)
        x, y = swaps[(yield Options(dict.fromkeys(swaps, 1.0)))]
        worn[x], worn[y] = worn[y], worn[x]
        last = {x, y}
    one, two, three = wearers
    yield f"So {one} wore the {worn[one]} {clothes}, {two} the {worn[two]} one, "
    yield f"and {three} the {worn[three]} one. "
    return None


def helping(cast: Cast) -> Script[Deed]:
    """A thing is out of reach; if the friend will not help, a stranger does."""
    loser = yield from cast.friend()
    helper = cast.other(loser)
    yield " dropped "
    thing = yield from cast.own_thing(loser)
    yield " "
    spot = yield lex.SPOTS
    yield f'. "Please help me, {helper.name}!" cried {loser.name}. '
    if helper.warm:
        yield f'"I am coming!" said {helper.name}, and {helper.he} found the {thing} {spot}. '
    else:
        yield f'"I am busy," said {helper.name}, so {loser.name} asked '
        stranger = yield from cast.stranger()
        yield f", and {stranger} found the {thing} {spot}. "
    return helper


PLOTS: dict[str, tuple[Plot, float]] = {  # how it opens: the plot, its weight
    "{hero} picked ": (sharing, 1.0),
    "{hero} hid ": (hiding, 1.0),
    "{hero} wished for ": (swapping, 1.0),
    "{hero} and {pal} walked ": (walking, 1.0),
    "{hero} gave a party. ": (party, 1.0),
    "{hero} and {pal} ran a race against ": (racing, 1.0),
    "{hero} wore ": (dressing, 1.0),
    "{hero} and {pal} were playing when ": (helping, 1.0),
}
SHORT = (helping, racing)


def character(cast: Cast | None) -> Script[Character]:
    """Say "a kind goat named Rex"; nothing of it is shared with the hero of the cast."""
    used = cast.used if cast else set()
    text = yield lex.TRAITS.with_article.without(*map(a, used))
    trait = text.partition(" ")[2]
    yield " "
    kind = yield taste(trait, lex.KINDS).without(*used)
    yield " named "
    names = {"girl": lex.GIRLS, "boy": lex.BOYS}.get(kind, lex.NAMES)
    name = yield names.without(*used)
    return Character(name, trait, kind)


def opening() -> Script[Cast]:
    """Introduce the friends and their home."""
    yield lex.OPENERS
    yield ", "
    hero = yield from character(None)
    yield " lived "
    home = yield taste(hero.kind, lex.HOMES)
    cast = Cast(hero, hero, home, used={hero.name, hero.trait, hero.kind})
    yield f". {capital(hero.his)} friend was "
    cast.pal = yield from character(cast)
    cast.used |= {cast.pal.kind}
    yield ". "
    return cast


def story() -> Script[None]:
    """Generate one complete story."""
    cast = yield from opening()
    scene = yield Options({"One ": 3, "On a ": 1})
    weather = yield lex.WEATHERS
    yield " "
    day = yield lex.DAYS
    cast.day = f"{weather} {day}"
    if scene == "On a ":
        yield ", while the "
        chorus = yield taste(weather, lex.CHORUS)
        yield " "
        yield taste(chorus, lex.SINGING)
        yield " "
        yield taste(chorus, lex.STAGE)
    yield ", "
    plots = {
        o.format(hero=cast.hero.name, pal=cast.pal.name): pw
        for o, pw in PLOTS.items()
        if scene == "One " or pw[0] in SHORT
    }
    plot, _ = plots[(yield Options({o: w for o, (_, w) in plots.items()}))]
    deed = yield from plot(cast)
    yield from ending(cast, deed)


def ending(cast: Cast, deed: Deed) -> Script[None]:
    """End with the way home and the moral of the deed, if there was one."""
    yield lex.EVENINGS
    yield f", they were back {cast.home}. "
    if deed is None:
        if (yield Options({'"What a ': 2, '"Good night, ': 1})) == '"What a ':
            yield f'{cast.day}!" said '
            yield from cast.friend()
            yield "."
        else:
            one = yield from cast.friend()
            yield f'," said {cast.other(one).name}.'
        return
    other = cast.other(deed)
    if deed.warm:
        praise = f'"{deed.name}, you are {a(deed.trait)} {deed.kind}," said {other.name}.'
        moral = f"{other.name} learned that {a(deed.trait)} {deed.kind} is the best of friends."
    else:
        never = f"{capital(deed.he)} was never so {deed.trait} again."
        praise = f'"I am sorry, {other.name}," said {deed.name}. {never}'
        moral = f"{deed.name} learned that {a(deed.trait)} {deed.kind} is soon alone."
    yield Options({praise: 1, moral: 1})
