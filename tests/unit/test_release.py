"""What a release is checked for before anything is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import enginebench
import pytest
from enginebench.machine.folders import checkout

ROOT = checkout() or Path()


def release_notes(tag: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / ".ci" / "release_notes.py"), tag], text=True, capture_output=True)


def test_the_version_has_a_section_in_the_changelog_and_it_is_the_newest() -> None:
    done = release_notes(f"v{enginebench.__version__}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")]
    assert headings[0] == "## [Unreleased]"
    assert headings[1].startswith(f"## [{enginebench.__version__}] - ")
    assert headings[2] not in done.stdout


@pytest.mark.parametrize("tag", ["v99.0.0", enginebench.__version__, "main"])
def test_a_tag_that_is_not_the_version_is_refused(tag: str) -> None:
    done = release_notes(tag)
    assert done.returncode == 1
    assert f"tag {tag} does not match version {enginebench.__version__}" in done.stderr
