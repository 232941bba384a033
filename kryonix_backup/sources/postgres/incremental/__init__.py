"""A snapshot before, with what the log since comes to."""
