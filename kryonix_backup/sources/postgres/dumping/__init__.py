"""The rows of a database, and all else that is in it, as entries of a snapshot."""
