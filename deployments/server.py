"""
The local Prefect server: ``python -m deployments.server PORT``.

The same application that ``prefect server start`` runs, without the command's start-up time, with
the blocks' picture and its own pid, and without the one request it would still send to the
internet.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prefect.server.api import collections
from prefect.server.api.server import create_app
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route

from blocks.logo import LOGO_PATH
from deployments.local import PID_PATH
from kryonix_backup.dumps import forbid_dumps

_LOGO = Path(__file__).with_name("logo.svg")


def local_application() -> FastAPI:
    """Prefect's application, served whole from this machine."""
    # The list of block and worker types comes from GitHub; an address that nobody resolves makes
    # the server take the copy that its package holds.
    for view in collections.KNOWN_VIEWS:
        collections.KNOWN_VIEWS[view] = "about:blank"
    application = create_app(final=True)
    logo = Route(LOGO_PATH, lambda request: FileResponse(_LOGO, media_type="image/svg+xml"))
    pid = Route(PID_PATH, lambda request: PlainTextResponse(str(os.getpid())))
    application.router.routes[:0] = [logo, pid]
    return application


if __name__ == "__main__":
    forbid_dumps()
    os.chdir(os.environ["PREFECT_HOME"])
    uvicorn.run(local_application(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
