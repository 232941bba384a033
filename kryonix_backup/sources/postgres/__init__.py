"""
One PostgreSQL database of a tenant, in both directions.

A *range* is a run of a table's pages, whose rows are one entry of a snapshot.
An *archive* is the schema as `pg_dump` writes it: everything but rows.
"""
