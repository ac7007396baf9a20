"""The documentation is checked like code: generated pages are current, examples parse, and everything there is is documented."""

from __future__ import annotations

import functools
import importlib.util
import pkgutil
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import enginebench
import pytest
from enginebench.audit.physics import Physics
from enginebench.audit.reading import read_claims
from enginebench.audit.statements import judge_all
from enginebench.cli import bench
from enginebench.engines.registry import discover
from enginebench.inputs.source import parse
from enginebench.machine.folders import checkout
from enginebench.metrics.registry import metrics as all_metrics
from enginebench.scenario import load_scenario
from enginebench.scenario.rules import check_entry
from enginebench.scenario.schema import ScenarioFile
from enginebench.validity import all_checks

ROOT = checkout() or Path()
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATED = [
    "scenario.schema.json",
    "scenario.md",
    "metrics.md",
    "validity.md",
    "engines.md",
    "dialects.md",
    "physics-published.md",
    "physics.md",
    "export.md",
]


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == generator().page(name), "run: make docs"


def test_every_published_measurement_is_in_its_table() -> None:
    claims = read_claims(ROOT / "scenarios" / "published" / "field.yaml")
    findings = judge_all(claims, Physics())
    table = generator().physics_pages.field_table(claims, findings).splitlines()
    assert sum(line.startswith("| ") for line in table) == len(findings) + 1
    assert sum(line.startswith("- **") for line in table) == len(claims.sources)


def test_everything_is_documented() -> None:
    metrics, engines = (ROOT / "docs" / "metrics.md").read_text(), (ROOT / "docs" / "engines.md").read_text()
    pages_of_all = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    assert all(f"`{name}`" in metrics for name in all_metrics())
    assert all(f"(`{name}`)" in engines for name in discover())
    validity = (ROOT / "docs" / "validity.md").read_text()
    assert all(f"### `{check.id}`" in validity for check in all_checks())
    for command in bench.commands:
        assert f"bench {command}" in pages_of_all, command
    pages = (metrics, engines, (ROOT / "docs" / "scenario.md").read_text())
    rows = [line for page in pages for line in page.splitlines() if line.startswith("| `")]
    assert not [row for row in rows if row.rstrip().endswith("|  |")], "a row without a meaning"


def commands() -> list[str]:
    """Every `bench ...` line of a code block without a language or in a shell's."""
    found: dict[str, None] = {}
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text()):
            if language in ("", "bash", "sh"):
                found |= dict.fromkeys(line.partition(" #")[0].strip() for line in text.splitlines() if line.startswith("bench "))
    return list(found)


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_docs_parse(line: str) -> None:
    command: click.Command = bench
    arguments = shlex.split(line)[1:]
    while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    command.make_context("bench", arguments)
    assert command is not bench


@pytest.mark.parametrize("file", sorted((ROOT / "scenarios").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_scenarios_are_valid_and_explain_themselves(file: Path) -> None:
    scenario = load_scenario(file, discover())
    assert scenario.name == file.stem
    assert scenario.title
    assert file.read_text().startswith("# ")


def test_yaml_of_the_docs_is_yaml() -> None:
    blocks = [text for page in PAGES for language, text in BLOCK.findall(page.read_text()) if language == "yaml"]
    assert blocks
    for text in blocks:
        parse(text, Path("docs.yaml"))


def test_loads_of_the_docs_are_accepted() -> None:
    """As far as that can be known without the files that they name."""
    head = {"name": "docs", "deployments": [{"engine": "fake", "model": "any"}]}
    blocks = [text for page in PAGES for language, text in BLOCK.findall(page.read_text()) if language == "yaml" and "loads:" in text]
    assert len(blocks) >= 4
    for text in blocks:
        source = parse(text, Path("docs.yaml"))
        assert isinstance(source.data, dict)
        for number, entry in enumerate(ScenarioFile.model_validate(head | source.data).loads):
            check_entry(entry, number, source)


def anchors(page: Path) -> set[str]:
    """The anchors that headings get, on GitHub and on the site alike."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for file, _, anchor in (link.partition("#") for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text)):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), f"{file}#{anchor}"


ROOMS = "|".join(module.name for module in pkgutil.iter_modules(enginebench.__path__) if module.ispkg)
NAME = re.compile(rf"\b(enginebench(?:\.\w+)+)|`((?:{ROOMS})(?:\.\w+)+)`")
NOT_PYTHON = re.compile(r"enginebench\.adapters$|.*\.(md|ya?ml|json|parquet)$")
"""What only looks like a name: the entry point group, and file names."""
PATH = re.compile(
    r"(?<![\w/.~-])((?:adapters|benchmarks|containers|docs|harness|reports|results/published|scenarios|tests|\.ci|\.github)/[\w./*<>-]+)"
)
SOURCE = re.compile(r"`([\w-][\w/.-]*\.(?:py|c))`")


def exists(name: str) -> bool:
    """Whether `name` is a module of enginebench, or something that a module defines."""
    try:
        pkgutil.resolve_name(name if name.startswith("enginebench.") else f"enginebench.{name}")
    except (ImportError, AttributeError):
        return False
    return True


@functools.cache
def sources() -> str:
    """Every source file of the repository, one per line, with a / in front."""
    folders = ("adapters", "benchmarks", "docs", "harness", "tests")
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in (ROOT / folder).rglob("*.[pc]*"))]
    return "".join(f"/{file.relative_to(ROOT)}\n" for file in files)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_names_and_paths_of_the_docs_exist(page: Path) -> None:
    """Every `enginebench.x.y`, `room.module`, path of the repository, and source file; `<name>` in a path stands for any name."""
    text = page.read_text()
    for made in re.findall(r"^`([\w/]+)\.py`:$", text, flags=re.MULTILINE):  # a file that the page shows how to write
        text = text.replace(f"{made}.py", "").replace(made.removeprefix("harness/").replace("/", "."), "")
    names = {one or other for one, other in NAME.findall(text)}
    assert not [name for name in sorted(names) if not NOT_PYTHON.match(name) and not exists(name)]
    paths = {re.sub(r"<\w+>", "*", path).rstrip("./") for path in PATH.findall(text)}
    assert not [path for path in sorted(paths) if not list(ROOT.glob(path))]
    assert not [file for file in sorted(set(SOURCE.findall(text))) if f"/{file}\n" not in sources()]


def test_python_of_the_physics_page_runs() -> None:
    blocks = [text for language, text in BLOCK.findall((ROOT / "docs" / "physics.md").read_text()) if language == "python"]
    assert blocks
    for text in blocks:
        exec(compile(text, "docs/physics.md", "exec"), {})  # noqa: S102  # our own documentation
