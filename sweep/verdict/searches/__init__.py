"""Independent searches of the same arms, so that the luck of a search is in the interval."""
