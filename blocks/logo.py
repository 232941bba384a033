"""Where the blocks' picture is: an address that a browser fetches, never the server or a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import HttpUrl, TypeAdapter

LOGO_PATH = "/kryonix/logo.svg"
_DEFAULT = "http://127.0.0.1:4200" + LOGO_PATH


def logo_url(env: Mapping[str, str] | None = None) -> HttpUrl:
    """
    The picture on the local server, or ``KRYONIX_LOGO_URL``.

    Prefect takes only http and https here; `kryonix up` serves the picture itself.
    """
    env = os.environ if env is None else env
    return TypeAdapter(HttpUrl).validate_python(env.get("KRYONIX_LOGO_URL") or _DEFAULT)
