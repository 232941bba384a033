"""
What keeps a tenant's bytes secret and whole.

A *master key* never leaves its key store; it wraps the tenant's *data keys* and its *id key*.
A data key never encrypts anything itself: every pack and every sealed object has a key of its own,
derived from the data key and a random salt, so that a nonce can be a counter.
"""
