"""Backup and restore of many tenants, each in a repository of its own; knows nothing of Prefect."""

__version__ = "0.1.0"
