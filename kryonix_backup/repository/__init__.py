"""
The stored chunks and snapshots of exactly one tenant.

A *chunk* is a run of plaintext bytes, named by the keyed hash of its content.
A *frame* is one chunk or several that were compressed and sealed together.
A *pack* is an object of frames that ends in a sealed directory of them; it is written once, under
the hash of its own bytes, and never changed.
A *segment* of the index says for many packs which chunk is where.
A *tree* is the sorted entries of one part of a source, in leaves that are chunks themselves.
A *snapshot* is the manifest of one run of a backup; writing it is what makes the run count.

Order of writing: packs, then index, then the snapshot. A crash before the last of them leaves
objects that nothing names, never a snapshot that cannot be restored.
"""
