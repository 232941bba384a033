"""What no address may hold: it is shown, logged, and kept in settings, snapshots and Prefect."""

from __future__ import annotations

import re
from urllib.parse import unquote

# A colon before the first "@" and before any path. Not by urlsplit: a password with "/", "?" or "#"
# in it ends the part that it takes for the server's, and would pass for a path.
_LOGIN = re.compile(r"(?:^|=)[^:/?#=]*://[^/?#@]*:[^@]*@", re.DOTALL)
_SETTING = re.compile(
    r"[?&;][^=&;]*(?:password|passwd|passphrase|secret|credential|access[-_]?key|signature)[^=&;]*=",
    re.I,
)


def holds_secret(url: str) -> bool:
    """Whether an address seems to hold a password; then no part of it may be repeated."""
    return any(_LOGIN.search(each) or _SETTING.search(each) for each in (url, unquote(url)))
