"""Guesses at the encoding of a text that is not UTF-8."""

import codecs

# Longer marks first: UTF-32's little-endian one begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
MOST_ACCENTS = 0.2  # of the bytes of a Western text; other scripts have more


def looks_like(start: bytes, around: bytes = b"") -> str | None:
    """Guess an encoding, by the name that iconv knows; None where nothing is likely.

    Args:
        start: The first bytes of the text.
        around: Bytes around the first one that is not UTF-8.
    """
    for mark, name in MARKS:
        if start.startswith(mark):
            return name
    if b"\0" in start:
        return _utf16_without_mark(start)
    return _western(around)


def _utf16_without_mark(start: bytes) -> str | None:
    """Recognise UTF-16 by its zeros: in Western text every other byte."""
    length = len(start) // 2
    even, odd = start[0::2].count(0) / max(length, 1), start[1::2].count(0) / max(length, 1)
    if odd > 0.5 > 10 * even:
        return "UTF-16LE"
    return "UTF-16BE" if even > 0.5 > 10 * odd else None


def _western(around: bytes) -> str | None:
    """Recognise one byte a character by few bytes above 127; 128 to 159 are Windows' quotes."""
    accents = [byte for byte in around if byte > 127]
    control = any(byte < 32 and byte not in b"\t\n\r\f" for byte in around)
    if not accents or control or len(accents) > MOST_ACCENTS * len(around) + 1:
        return None
    return "WINDOWS-1252" if any(byte < 160 for byte in accents) else "LATIN1"
