"""The one exception that says "this is yours to mend": printed as one line, exit code 2."""


class InputError(ValueError):
    """Something that the user gave cannot work.

    The message is one line: what must hold, what came instead, the way out.
    """
