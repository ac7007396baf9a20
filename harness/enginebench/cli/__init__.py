"""The command line: parse, call, print. One file per verb; nothing heavy is imported before a verb runs.

Tables go to stdout, progress and warnings to stderr. Exit codes are `enginebench.errors.Exit`.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from enginebench import __version__
from enginebench.cli.doctor import doctor
from enginebench.cli.engines import engines
from enginebench.cli.plan import plan
from enginebench.cli.report import report
from enginebench.cli.run import run
from enginebench.cli.shared import completion
from enginebench.errors import Exit, UserError

_EPILOG = """\b
Examples:
  bench doctor                              what can this machine run?
  bench engines install llamacpp            an engine, in an environment of its own
  bench run quickstart                      measure a built-in scenario
  bench run my.yaml --only engine=vllm      measure a part of yours; run it again to resume
  bench report results/2026-11-21-quickstart --html report.html
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bench")
def bench() -> None:
    """Compare LLM inference engines: launch them, drive them with a load that is proven, judge the result."""


for command in (run, plan, report, engines, doctor, completion):
    bench.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run `bench`; never returns. A UserError becomes one message and exit code 2."""
    # kill, a closed terminal and Ctrl-C end a run in the same orderly way: SIGINT is what the event loop understands. Shells start
    # background jobs of scripts with SIGINT ignored, and then kill would be ignored too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    try:
        outcome: Any = bench.main(arguments, prog_name="bench", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else Exit.OK
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        code = Exit.USAGE
    except click.ClickException as error:
        error.show()
        code = Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what was measured is stored, and the same command resumes", err=True)
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # `bench report ... | head`
        sys.stderr.close()
        code = Exit.OK
    sys.exit(int(code))


def _as_interrupt(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)
