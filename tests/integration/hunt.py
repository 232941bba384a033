"""Secrets are looked for in every form in which they could be lying about."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

_LEAST_BYTES = 8  # of a form; shorter ones are found by chance


class Hunt:
    """
    Looks for secrets by name; what it finds is named, never shown.

    A secret is found in any bytes around it as it is, in hexadecimal, in base64 wherever it begins
    in what was encoded (so also inside of a pickle that was encoded), escaped for JSON, Python, a
    URL, and in UTF-16.
    """

    def __init__(self) -> None:
        self._forms: dict[bytes, str] = {}

    def add(self, name: str, secret: bytes | str) -> None:
        """Look for one more."""
        value = secret.encode() if isinstance(secret, str) else secret
        assert len(value) >= _LEAST_BYTES, f"{name} would be found by chance"
        for form in _forms(value):
            self._forms.setdefault(form, name)

    def add_all(self, secrets: Mapping[str, bytes]) -> None:
        """Look for these, too."""
        for name, secret in secrets.items():
            self.add(name, secret)

    def found(self, data: bytes) -> set[str]:
        """The names of the secrets that are in it."""
        return {name for form, name in self._forms.items() if form in data}

    def in_files(self, folder: Path) -> dict[str, set[str]]:
        """Every file below a folder with secrets in it, its name included."""
        found = {}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            body = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            if secrets := self.found(name.encode() + b"\0" + body):
                found[name] = secrets
        return found


def _forms(value: bytes) -> Iterator[bytes]:
    yield value
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for shift in range(3):
        encoded = _inside_base64(value, shift)
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))
    escaped = repr(value)[2:-1]
    yield escaped.encode()
    yield json.dumps(escaped)[1:-1].encode()
    yield quote(value).encode()
    yield quote_plus(value).encode()
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield json.dumps(text)[1:-1].encode()
    yield text.encode("utf-16-le")


def _inside_base64(value: bytes, shift: int) -> bytes:
    """The characters that depend on the value alone, if ``shift`` bytes come before it."""
    encoded = base64.b64encode(bytes(shift) + value)
    end = (0, 3, 2)[(shift + len(value)) % 3]
    return encoded[(0, 2, 3)[shift] : len(encoded) - end]
