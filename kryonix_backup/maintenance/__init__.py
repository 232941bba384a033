"""Keeping a repository sound."""
