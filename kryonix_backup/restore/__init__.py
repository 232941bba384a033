"""
The road of a restore: a plan, then six phases, each journaled in the repository when it ends.

`plan` works out what to bring back and changes nothing; `run` does one phase; `phases` says what a
failure in each means; `selection` picks entries; `report` tells what came of it.
"""
