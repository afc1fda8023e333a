"""Tables of a study, read from its database."""
