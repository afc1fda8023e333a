"""Words of an error line that point to the name that was probably meant."""

import difflib
from collections.abc import Iterable

FEW = 8  # names that a message may list besides the nearest


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; the nearest is 'x'" for the known name most like this one; "" where none is."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"; the nearest is {by_lower[near[0]]!r}" if near else ""


def unknown(key: str, known: Iterable[str]) -> str:
    """Return what to say of an unknown key: the nearest known one, and all where they are few."""
    known = list(known)
    near = nearest(key, known)
    every = f"; known are {', '.join(known)}" if len(known) <= FEW or not near else ""
    return f"is not a known key{near}{every}"
