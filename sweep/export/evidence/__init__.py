"""Evidence packs: a study in one file that can be checked."""
