"""Commands that hand a result over to other programs."""
