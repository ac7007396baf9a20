"""The log of a container whose stream ended before its last output, as Podman's sometimes does."""

from __future__ import annotations

import pytest
from enginebench.runtime.container.engine import after


@pytest.mark.parametrize(("copied", "rest"), [(0, b"token s3cret\nend\n"), (5, b" s3cret\nend\n"), (13, b"end\n"), (17, b""), (99, b"")])
def test_what_was_copied_is_left_out(copied: int, rest: bytes) -> None:
    assert b"".join(after(copied, [b"token", b" s3cret", b"\n", b"", b"end\n"])) == rest
