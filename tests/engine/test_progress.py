"""What `bench run` prints while it runs goes through the validity checks of the report."""

from __future__ import annotations

from .bench import Bench


def test_the_line_of_an_invalid_cell_says_so_and_why(bench: Bench) -> None:
    done = bench(
        "run", bench.scenario("options: {ttft_ms: 5, itl_ms: 2, short_output: 3}", "options: {ttft_ms: 5, itl_ms: 2}"), "--no-html"
    )
    assert done.returncode == 0, done.stderr
    ended = [line for line in done.stderr.splitlines() if line.startswith("[") and " tok/s" in line]
    assert len(ended) == 4
    short, whole = ([line for line in ended if ("short_output" in line) is so] for so in (True, False))
    assert all("  invalid: asked for 8 output tokens, the server counted 3 on average" in line for line in short), short
    assert not any("output tokens" in line for line in whole), whole
