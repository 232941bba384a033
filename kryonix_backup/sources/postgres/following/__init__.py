"""Fetching a database's log from its slot, without a gap that nobody knows of."""
