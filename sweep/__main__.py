"""`python -m sweep` is `squen-sweep`."""

from sweep.cli import main

main()
