"""Results of a sweep in the forms that other programs load."""
