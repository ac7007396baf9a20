"""`bench --help`: every verb, by what one wants, one line each."""

from __future__ import annotations

from click.testing import CliRunner
from enginebench.cli import bench


def test_every_verb_has_one_line_of_80_columns() -> None:
    lines = CliRunner().invoke(bench, ["--help"], prog_name="bench").output.splitlines()
    assert max(len(line) for line in lines[: lines.index("  Examples:")]) <= 80
    for verb in bench.commands:
        (said,) = [line for line in lines if line.startswith(f"  {verb} ")]
        assert len(said.split()) > 2
