"""
Looking into snapshots without restoring them.

Paths for people are ``SOURCE/path/in/the/source``, for a source with one part; where a source has
several, the part's name comes after the source's.
"""
