"""A part of a scenario that cannot run here is skipped with one line, and measured later by --retry-failed."""

from __future__ import annotations

from .bench import Bench

ADAPTER = """
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import enginebench.adapter as eb

spec = importlib.util.spec_from_file_location("fake_of_a_test", eb.WORKERS.parent / "fake.py")
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
Fake = next(each for each in vars(module).values() if isinstance(each, type) and issubclass(each, eb.Adapter) and each is not eb.Adapter)


class Lazy(Fake):
    name = "lazy"
    title = "lazy engine"
    __module__ = __name__

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return super().find(python) if Path("installed").exists() else ()
"""


def test_a_part_that_is_missing_is_measured_when_it_is_there(bench: Bench) -> None:
    (bench.folder / "lazy.py").write_text(ADAPTER)
    settings = "model: any, precision: none, options: {ttft_ms: 1, itl_ms: 1}"
    command = ("run", bench.write(f"engine: fake, {settings}", f"engine: lazy, {settings}"), "--adapter", "lazy.py", "--no-html")
    done = bench(*command)
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == "warning: lazy engine is not installed here: 2 of 4 cells skipped; bench engines install lazy"
    assert "[3-4/4] lazy: 2 cells skipped: lazy engine is not installed here" in lines
    assert sum("lazy engine" in line for line in lines) == 2
    (bench.folder / "installed").touch()
    done = bench(*command, "--retry-failed")
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in bench.cells()] == ["ok"] * 4
