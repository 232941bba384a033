"""
One PostgreSQL database of a tenant, in both directions.

A *slot* is a logical replication slot: the server keeps for it the WAL that was not confirmed yet.
An *LSN* is a position in the server's WAL, an integer here.
A *chain* is what one slot has given without a gap; a lost slot ends it.
A *beat* is a message of ours in the log, with the values of the sequences; it also gives an idle
database something to restore to.

`database` is the source, `restoring.target` the target, `checking` what an operator asks for, and
`physical` a whole cluster. Below them, each knowing only those before it: `server`, `decoding`,
`preparation`, `following`, `dumping`, `incremental`, `restoring`.
"""
