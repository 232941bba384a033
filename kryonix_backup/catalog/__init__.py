"""
What this machine remembers of runs and snapshots: a cache, which the repositories can fill again.

A *run* is one backup, restore or verification, with a row of its own whether it went well or not.
A run leaves its *record* in the *outbox*, a directory of small files; the catalog takes the
records in when it is opened. So no run waits for a database, or fails because of one.
"""
