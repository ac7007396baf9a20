"""The command line: one file per verb, which parses, calls the Python API (`enginebench.api`) and prints. It decides nothing.

Tables go to stdout, progress and warnings to stderr. Exit codes are `enginebench.errors.Exit`. The API is imported when a verb runs.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

import click

from enginebench import __version__
from enginebench.cli.audit import audit
from enginebench.cli.calibrate import calibrate
from enginebench.cli.ceiling import ceiling
from enginebench.cli.checks import checks
from enginebench.cli.clean import clean
from enginebench.cli.client import client
from enginebench.cli.compare import compare
from enginebench.cli.doctor import doctor
from enginebench.cli.engines import engines
from enginebench.cli.export import export
from enginebench.cli.fit import fit
from enginebench.cli.history import history
from enginebench.cli.images import images
from enginebench.cli.import_file import import_file
from enginebench.cli.list_runs import list_runs
from enginebench.cli.offload import offload
from enginebench.cli.pack import pack
from enginebench.cli.plan import plan
from enginebench.cli.report import report
from enginebench.cli.rerun import rerun
from enginebench.cli.routing import routing
from enginebench.cli.run import run
from enginebench.cli.shared import completion, show
from enginebench.cli.site import site
from enginebench.cli.tune import tune
from enginebench.cli.verify import verify
from enginebench.cli.view import view
from enginebench.cli.workloads import workloads
from enginebench.errors import Exit, UserError

_EPILOG = """\b
Examples:
  bench doctor                              what can this machine run?
  bench engines install llamacpp            an engine, in an environment of its own
  bench run quickstart                      measure a built-in scenario
  bench run my.yaml --only engine=vllm      measure a part of yours; run it again to resume
  bench report results/2026-11-21-quickstart --html report.html
"""


_VERBS: Mapping[str, Mapping[click.Command, str]] = {
    "Measure": {
        plan: "what a scenario would do and how long it takes",
        run: "measure a scenario; the same command resumes it",
        tune: "the best options of each engine for a scenario",
        rerun: "plan a stored run again: what differs here?",
        client: "send load for a run on another machine",
        calibrate: "how much load this machine's client can send",
        workloads: "named workloads; what is in a trace or data set?",
    },
    "Read the answer": {
        report: "a run, or several side by side, here or as a page",
        compare: "what changed between two runs; exit code for CI",
        history: "what changed over many nights, and with what",
        list_runs: "the stored runs, or the scenarios to run",
        view: "the stored runs in a browser; follows one going on",
        site: "the stored runs as a static site",
        checks: "when a figure is doubted, and what to do then",
    },
    "Before you rent or buy": {
        fit: "does a model fit?",
        ceiling: "how fast can it be, and what is expected?",
        offload: "which experts stay on the GPU",
        routing: "which experts tokens are sent to",
        audit: "can published claims be true?",
    },
    "Files of runs, and of other tools": {
        import_file: "another tool's result files as a run",
        export: "a run in another tool's format, or as a table",
        pack: "a run as one file, with hashes of all inputs",
        verify: "is such a file what it says?",
    },
    "This machine": {
        doctor: "what can it run, and why not?",
        engines: "which engines are installed; install one",
        images: "which container images are here; build, pull, pin",
        clean: "remove what killed runs have left behind",
        completion: "the completion script of your shell",
    },
}
"""All verbs, by what one wants, in the order of `bench --help`, with what they say there."""


class _PipeClosed(Exception):  # noqa: N818  # not an error
    """The reader of our output closed the pipe (`bench report | head`)."""


class _Bench(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, verbs in _VERBS.items():
            with formatter.section(title):
                formatter.write_dl([(str(verb.name).ljust(width), words) for verb, words in verbs.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            outcome = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # here, because click's main() turns it into exit code 1, which is THRESHOLD
            raise _PipeClosed from None
        return outcome


@click.group(
    cls=_Bench, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
)
@click.version_option(__version__, prog_name="bench")
def bench() -> None:
    """Compare LLM inference engines: launch them, send a load that is proven to be delivered, judge the result."""


for verbs in _VERBS.values():
    for verb in verbs:
        bench.add_command(verb)


def main(arguments: list[str] | None = None) -> None:
    """Run `bench`; never returns. A UserError becomes one message and exit code 2."""
    # Imported modules and read records stay in memory. Searching them for cycles after every 700 objects takes 7 % of a run of one request.
    gc.set_threshold(100_000)
    # kill, a closed terminal and Ctrl-C stop a run in the same way: as SIGINT, which the event loop handles. A shell starts background jobs
    # of scripts with SIGINT ignored, so the default handler is set again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _as_interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it: the run must outlive its terminal
        signal.signal(signal.SIGHUP, _as_interrupt)
    sys.unraisablehook = _repeat_lost_interrupt
    closed = _open_standard_streams()
    try:
        outcome: Any = bench.main(arguments, prog_name="bench", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else Exit.OK
    except UserError as error:
        show(f"error: {error}")
        code = Exit.USAGE
    except click.ClickException as error:
        error.show()
        code = Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; measured cells are stored, and the same command resumes", err=True)
        code = Exit.INTERRUPTED
    except _PipeClosed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes stdout once more when it exits
        code = Exit.PIPE_CLOSED
    except (OSError, MemoryError, ImportError, RuntimeError) as error:
        if (why := _exhausted(error)) is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with contextlib.suppress(OSError):  # stderr may be full, too
            show(f"error: {why}")
        code = Exit.USAGE
    if 1 in closed:
        show("stdout is closed: nothing was printed")
    gc.freeze()  # else the interpreter searches everything for cycles when it exits, which takes 10 % of a run of one request
    sys.exit(int(code))


def _open_standard_streams() -> list[int]:
    """Open those that the caller has closed, on nothing: else the next file would get the number of one, and a child would write to it."""
    closed = []
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            closed.append(descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w"))
    return closed


def _exhausted(error: Exception) -> str | None:
    """What this machine is out of, in one sentence; None for any other error, which is a bug."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in ("allocate memory", "failed to map segment", "start new thread")):
        return "out of memory: end other programs, or raise the limit (ulimit -v)"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
        return f"{error.filename or 'the output'} cannot be written: {error.strerror}"
    return None


def _as_interrupt(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


def _repeat_lost_interrupt(lost: sys.UnraisableHookArgs) -> None:
    """Python drops exceptions in callbacks of the garbage collector, a KeyboardInterrupt too: send that again, a moment later."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.02, _thread.interrupt_main)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)
