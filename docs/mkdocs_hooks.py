"""What `mkdocs build` cannot do by itself: pages from the repository's root, links that leave docs/, and the list of decisions.

It knows nothing of the theme. README.md becomes the site's first page; CHANGELOG.md and CONTRIBUTING.md become pages too. A file outside docs/ that
a page links to is copied into the site. A link to a file that does not exist stops the build.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
FROM_ROOT = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "development.md": "CONTRIBUTING.md"}
"""Page of the site -> file of the repository."""
DECISIONS = "decisions/index.md"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: entries without a page are left out, pages without an entry come last, and then all decisions."""
    pages = {file.name for file in (ROOT / "docs").glob("*.md")} | set(FROM_ROOT)
    nav = _existing(config.nav or [], pages)
    more = sorted(pages - set(_names(nav)))
    decisions = [DECISIONS, *(f"decisions/{file.name}" for file in _decisions())]
    config.nav = [*nav, *([{"More": more}] if more else []), {"Decisions": decisions}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the root, and the list of decisions."""
    for page, source in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    lines = [f"- [{file.read_text().splitlines()[0].removeprefix('# ')}]({file.name})" for file in _decisions()]
    files.append(File.generated(config, DECISIONS, content="\n".join(["# Decisions", "", *lines, ""])))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point every relative link outside code blocks to where the file is on the site."""
    here = page.file.src_uri
    source = PurePosixPath(FROM_ROOT.get(here, f"docs/{here}"))

    def target(link: re.Match[str]) -> str:
        wanted = os.path.normpath(source.parent / link[1])
        return os.path.relpath(_on_site(wanted, source, config, files), PurePosixPath(here).parent)

    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(target, text) for text in parts[::2]]
    return "".join(parts)


def _on_site(wanted: str, source: PurePosixPath, config: MkDocsConfig, files: Files) -> str:
    """The site's name for a file of the repository, which is copied there unless it is a page."""
    if not (ROOT / wanted).exists():
        raise PluginError(f"{source}: the link to {wanted} leads nowhere")
    if wanted == "docs/decisions":
        return DECISIONS
    pages = {name: page for page, name in FROM_ROOT.items()}
    if wanted in pages or wanted.startswith("docs/"):
        return pages.get(wanted, wanted.removeprefix("docs/"))
    copy = (
        f"repository/{wanted.replace('/.', '/').lstrip('.')}.txt"  # a browser shows .txt, and mkdocs leaves out names that begin with a dot
    )
    if files.get_file_from_path(copy) is None:
        found = ROOT / wanted
        content = "\n".join(sorted(each.name for each in found.iterdir())) if found.is_dir() else found.read_bytes()
        files.append(File.generated(config, copy, content=content))
    return copy


def _decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "decisions").glob("0*.md"))


def _existing(nav: list[Any], pages: set[str]) -> list[Any]:
    """The navigation without entries that have no page, and without sections that are empty then."""
    kept = ({title: _existing(value, pages) if isinstance(value, list) else value} for entry in nav for title, value in entry.items())
    return [entry for entry in kept if all(value if isinstance(value, list) else value in pages for value in entry.values())]


def _names(nav: list[Any]) -> list[str]:
    values = [value for entry in nav for value in entry.values()]
    return [name for value in values for name in (_names(value) if isinstance(value, list) else [value])]
