"""
The road of a backup: a source is read, cut, sealed and stored; then the snapshot makes it count.

`run` has the steps, `pipeline` the threads between them, `report` what is told of it.
"""
