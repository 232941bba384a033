"""
Doubles and real servers for tests, the demo and benchmarks; nothing of the product imports it.

A *fault* is a failure that a test scripts, and that must fire.
"""
