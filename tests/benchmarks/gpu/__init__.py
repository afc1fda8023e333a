"""One command that measures a GPU; see __main__."""
