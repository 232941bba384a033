"""
Where a repository's objects are kept.

A *store* is a bucket or a directory that holds *objects*: bytes under a name, written once and
never changed. A *region's* URL says where its store is. `registry.open_store` makes a store from a
region's settings; every adapter keeps the promises of `store.ObjectStore`.
"""
