from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.events import Progress
from tasks.progress import percent


@given(done=st.integers(0, 10**15), total=st.integers(0, 10**15))
def test_only_the_end_makes_a_hundred(done: int, total: int) -> None:
    assert 0 <= percent(Progress("backup", bytes_done=done, bytes_total=total)) <= 99
