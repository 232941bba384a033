"""A server, a database of it, and what it is asked with."""
