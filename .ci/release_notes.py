"""Checks the tag of a release and prints its section of the changelog: `python .ci/release_notes.py v0.2.0`.

The tag must be `v` and the version of the package, and CHANGELOG.md must have a dated section for it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
SECTION = re.compile(r"^## \[(?P<version>\d[^]]*)\] - \d{4}-\d\d-\d\d\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def notes(tag: str, package: str, changelog: str) -> str:
    """What changed in the release with this tag. Exits with one sentence if tag, version and changelog disagree.

    package: the text of the package's __init__.py.
    """
    found = VERSION.search(package)
    version = found[1] if found else "unknown"
    if tag != f"v{version}":
        raise SystemExit(f"tag {tag} does not match version {version} in harness/enginebench/__init__.py")
    sections = {section["version"]: section["text"].strip() for section in SECTION.finditer(changelog)}
    if not sections.get(version):
        raise SystemExit(f"CHANGELOG.md has no dated section for {version}")
    return sections[version] + "\n"


if __name__ == "__main__":
    texts = [(ROOT / name).read_text() for name in ("harness/enginebench/__init__.py", "CHANGELOG.md")]
    sys.stdout.write(notes(sys.argv[1], *texts))
