from __future__ import annotations

from tests.services.postgres import postgres, swept

__all__ = ["postgres", "swept"]
