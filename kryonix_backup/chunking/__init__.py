"""Cutting a stream into chunks so that equal data is cut alike, wherever it stands."""
