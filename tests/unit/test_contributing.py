"""docs/contributing.md does what it says: every example, put where the page says into a copy of the package, has the promised effect."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from enginebench.machine.folders import checkout

ROOT = checkout() or Path()
PAGE = (ROOT / "docs" / "contributing.md").read_text()
EXAMPLE = re.compile(r"^((?:At the end of|Next to the other imports in) )?`([\w./-]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""What says that the file exists, its name, and the example."""
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = {text.partition("\n")[0].strip(): text for text in PAGE.split("\n## ")[1:]}
TASKS = [name for name in SECTIONS if name != "Files touched"]


@dataclass(frozen=True)
class Tree:
    """A checkout with the examples of one section."""

    folder: Path
    files: tuple[str, ...]
    """The files that the section names."""
    commands: tuple[str, ...]

    def bench(self, line: str, code: int = 0) -> str:
        """The output of one command, which must end with this code."""
        return self.python("-m", "enginebench", *shlex.split(line)[1:], code=code)

    def python(self, *arguments: str, code: int = 0) -> str:
        """The output of Python with the copy of the package."""
        env = {**os.environ, "PYTHONPATH": str(self.folder / "harness"), "ENGINEBENCH_HOME": str(self.folder / "home"), "COLUMNS": "400"}
        done = subprocess.run([sys.executable, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_all(self) -> list[str]:
        """The output of every command of the section."""
        return [self.bench(line) for line in self.commands]


def tree(folder: Path, section: str) -> Tree:
    """A copy of the package, links to the rest of the checkout, and the section's examples."""
    for name in ("scenarios", "reports", "containers", "pyproject.toml", "results/published"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    for name in ("harness/enginebench", "adapters"):  # with the byte code, but not with what another test is writing of it
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    text = SECTIONS[section]
    for introduction, name, content in EXAMPLE.findall(text):
        file = folder / name
        assert file.exists() == bool(introduction), f"{name}: does the page say whether it is a new file?"
        with file.open("a") as target:
            target.write(content)
    lines = tuple(line for block in COMMANDS.findall(text) for line in block.splitlines())
    return Tree(folder, tuple(name for _, name, _ in EXAMPLE.findall(text)), lines)


def test_the_page_has_the_eight_tasks_and_counts_their_files() -> None:
    assert [name.removeprefix("A ").removeprefix("An ") for name in TASKS] == [
        "metric", "validity check", "engine", "report section", "load shape", "hardware entry", "model family", "importer",
    ]  # fmt: skip
    table = dict(re.findall(r"^\| (an? .+?) \| (.+) \|$", SECTIONS["Files touched"], re.MULTILINE))
    assert [name[0].lower() + name[1:] for name in TASKS] == list(table)
    for task, listed in zip(TASKS, table.values(), strict=True):
        for _, name, _ in EXAMPLE.findall(SECTIONS[task]):
            place = Path(name.removeprefix("harness/enginebench/"))
            assert len(place.parts) == 1 or str(place) in listed or str(place.with_name("<name>.py")) in listed, name


def test_a_metric_is_in_every_output(tmp_path: Path) -> None:
    found = tree(tmp_path, "A metric")
    table, _ = found.run_all()
    assert "slow starts" in table
    row = json.loads(found.bench(found.commands[0].replace("--table", "--json")))["rows"][0]
    assert "slow_starts" in row["cells"][0]["figures"]
    assert "Share of the requests whose TTFT is above 30 ms" in (tmp_path / "page.html").read_text()


def test_a_check_is_listed_and_applied(tmp_path: Path) -> None:
    listed, report = tree(tmp_path, "A validity check").run_all()
    assert "the highest E2E is over 1.2 times the median" in listed
    reasons = [reason for row in json.loads(report)["rows"] for cell in row["cells"] for reason in cell["reasons"]]
    assert any(reason["check"] == "outlier" for reason in reasons)


def test_an_engine_is_found_in_adapters_and_by_option(tmp_path: Path) -> None:
    found = tree(tmp_path, "An engine")
    built_in, _ = found.commands
    assert re.search(r"^mine +Mine +process", found.bench(built_in), re.MULTILINE)
    (tmp_path / "adapters" / "mine.py").rename(tmp_path / "mine.py")
    assert "Mine" not in found.bench(built_in)
    assert re.search(r"^mine +Mine +process", found.bench(found.commands[1]), re.MULTILINE)


def test_a_section_is_on_the_page(tmp_path: Path) -> None:
    tree(tmp_path, "A report section").run_all()
    page = (tmp_path / "page.html").read_text()
    assert 'id="slowest"' in page
    assert "The three slowest" in page


def test_a_load_shape_is_planned_and_has_a_row_per_phase(tmp_path: Path) -> None:
    found = tree(tmp_path, "A load shape")
    assert 1 <= sum(name.startswith("harness/") for name in found.files) <= 3
    plan, _, table = found.run_all()
    assert "surge_s" in plan or "20 req/s" in plan
    assert "20 req/s" in table
    assert "40 req/s" in table
    (tmp_path / "bad.yaml").write_text((tmp_path / "surge.yaml").read_text().replace("surge_s: 1", "surge_s: 1, duration_s: 5"))
    found.bench("bench plan bad.yaml", code=2)


def test_a_device_fits_models(tmp_path: Path) -> None:
    (text,) = tree(tmp_path, "A hardware entry").run_all()
    assert "4xmycard" in text.replace(" ", "") or "mycard-48gb" in text


def test_a_family_has_ceilings_random_weights_and_catalogue_entries(tmp_path: Path) -> None:
    found = tree(tmp_path, "A model family")
    random, published = found.run_all()
    assert "mymoe" in random
    assert "mymoe-1b" in published
    written = "from pathlib import Path; from enginebench.checkpoints import gguf_file, hf_folder, random_moe; "
    written += (
        "m = random_moe.RandomMoE('mymoe'); gguf_file.write_gguf(m, 'f16', Path('m.gguf')); hf_folder.write_hf_folder(m, 'f16', Path('hf'))"
    )
    found.python("-c", written)
    for file in ("m.gguf", "hf"):
        found.bench(f"bench ceiling {file} --hardware h100")
    deployment = "deployments: [{engine: llamacpp, model: m, precision: f16}]\nloads: [{}]\n"
    (tmp_path / "s.yaml").write_text("name: s\nmodels: {m: {random_weights: {architecture: mymoe}}}\n" + deployment)
    assert "1 deployment" in found.bench("bench plan s.yaml")


def test_an_importer_makes_a_run_with_stated_figures(tmp_path: Path) -> None:
    found = tree(tmp_path, "An importer")
    (table,) = found.run_all()
    assert "410" in table
    assert "62.0" in table
    assert "figures stated by mytool, mytool.csv have no raw samples" in table
    (tmp_path / "mytool.csv").write_text("model,streams,tokens_per_s\nolmoe,1,80\n")
    found.bench("bench import mytool.csv", code=2)
