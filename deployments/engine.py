"""
One flow run: ``python -m deployments.engine``.

Prefect's own, with what holds for every process of ours that opens keys in force from its start.
"""

from __future__ import annotations

import runpy

from deployments.environment import load_schedules
from kryonix_backup.dumps import forbid_dumps

if __name__ == "__main__":
    forbid_dumps()
    load_schedules()
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
