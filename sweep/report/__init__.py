"""The HTML report, and a study's tables in the terminal."""
