"""Which names an object may have, so that no name can leave its store or collide in one."""

from __future__ import annotations

import re

from kryonix_backup.errors import InvalidName

# Where stores keep what is not an object: files being written, probes of the server.
SCRATCH = "tmp"

# No segment starts with a dot: that leaves out "..", "." and what other programs hide.
_SEGMENT = r"[a-z0-9_-][a-z0-9._-]{0,199}"
_NAME = re.compile(rf"(?!{SCRATCH}/){_SEGMENT}(?:/{_SEGMENT})*", re.ASCII)
_PREFIX = re.compile(rf"(?:{_SEGMENT}/)*(?:{_SEGMENT})?", re.ASCII)
_LONGEST = 800
_HINT = "Names of objects are made of a-z, 0-9, '.', '_', '-' and '/'; this one was not made by us."


def is_object_name(name: str) -> bool:
    """Whether an object may have that name; ``tmp/`` is kept for the store itself."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


def check_object_name(name: str) -> str:
    """The name itself; raises InvalidName where an object cannot have it."""
    if not is_object_name(name):
        raise InvalidName(f"no object can be named {name[:80]!a}", _HINT)
    return name


def check_prefix(prefix: str) -> str:
    """The prefix itself; raises InvalidName where no object's name can start with it."""
    if len(prefix) > _LONGEST or not _PREFIX.fullmatch(prefix):
        raise InvalidName(f"no object's name starts with {prefix[:80]!a}", _HINT)
    return prefix
