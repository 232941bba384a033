"""
The command: words in, an answer out.

`main` finds a command by name and imports only that one; `answer` prints what it found as text or
as JSON; every error leaves as the exit code of its class. docs/command.md is the contract.
"""
