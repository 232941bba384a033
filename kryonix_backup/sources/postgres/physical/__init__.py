"""
A PostgreSQL cluster that belongs to one tenant alone, in both directions.

A *backup* is what the server's own base backup gives: every file of the cluster; an *incremental*
one holds only what changed since the backup before it, as the server's WAL summaries know it.
A *snapshot* names a full backup, in ``full/``, and the incremental ones on top of it.
The *log* is the cluster's WAL, byte by byte, as a physical replication slot keeps it.
A *beat* is a commit of ours, by which a time after the tenant's last commit can be reached.
"""
