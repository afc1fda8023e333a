"""A study as its file declares it: tables, parameters, checks."""
