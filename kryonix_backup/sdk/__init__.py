"""
The one door to the engine: what the command, the flows and other programs use.

`client.Client` does the work of one tenant, `tenants` registers them, `history` and `doctor` tell
about them. The engine's values that go in and out are named in `client`.
"""
