"""
Put on PYTHONPATH: writes down every address that a process of the tests asks for.

Loopback is left out; what remains in ``$KRYONIX_TEST_OUTBOUND`` reached out of this machine.
"""

import os
import sys
from typing import Any


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and not str(host).startswith(("127.", "::1", "localhost", "0.0.0.0")):
        with open(os.environ["KRYONIX_TEST_OUTBOUND"], "a") as notes:
            notes.write(f"{host} {sys.argv}\n")


sys.addaudithook(_note)
