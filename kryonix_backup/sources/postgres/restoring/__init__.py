"""A new database out of a snapshot and a log, and its place in the old one."""
