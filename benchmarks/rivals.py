"""Runs other load generators that are installed against truthserver and compares their reports with its log.

A rival is a command on PATH, or a file named by an environment variable: ENGINEBENCH_RIVAL_GUIDELLM=/path/to/bin/guidellm (likewise
INFERENCE_PERF, AIPERF, EVALSCOPE, VLLM, SGLANG). Each runs with its defaults, except for settings that make the work equal: closed loop,
streamed completions, 64 input tokens, no network. Their requests have no ids, so `compared` compares means and percentiles with those of
the log, not single requests. Does not know: enginebench's load generator.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from enginebench.checkpoints.tokenizer import END_OF_TEXT, TURN_END, word_tokenizer

INPUT_TOKENS = 64
TIME_LIMIT_S = 900.0
MODEL = "truth"
Record = tuple[int, Any]
"""One request in the server's log: when it had been read, and when each token was sent (int64 array); monotonic ns."""


class RivalError(Exception):
    """A rival cannot run or wrote no report. The message ends with its last output."""


@dataclass(frozen=True)
class Figures:
    """The figures in a rival's report, in ms."""

    succeeded: int
    """Requests that the rival counts as successful."""
    ttft_mean_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p99_ms: float | None
    """Of the gaps between events; None if it reports only one mean per request."""


@dataclass(frozen=True)
class Reported(Figures):
    """Figures with their source and cost."""

    title: str
    """Name and version."""
    cpu_s: float
    """CPU seconds of all the rival's processes, including imports and prompts; subtract a run with one request for the cost of the load."""


@dataclass(frozen=True)
class Work:
    """The work of a rival."""

    url: str
    streams: int
    requests: int
    tokens: int
    folder: Path
    """An empty folder for its files."""
    tokenizer: Path
    """A Hugging Face folder with a tokenizer for which an event is one token."""


@dataclass(frozen=True)
class Rival:
    """Another load generator."""

    package: str
    """The distribution and its command."""
    arguments: Callable[[Work], list[str]]
    read: Callable[[Path], Figures] | None
    """Reads the report in the folder of the work. None: `run` cannot be asked for figures, only the files are used (dialects.py)."""
    name: str = ""
    """Name in tables, without the version."""
    launcher: Callable[[Path], list[str]] = lambda command: [str(command)]
    """Path of the command -> argv before the arguments."""

    def find(self) -> Path | None:
        """The command; None if it is not installed. RivalError if its variable does not name a program."""
        variable = f"ENGINEBENCH_RIVAL_{self.package.upper().replace('-', '_')}"
        named = os.environ.get(variable)
        found = shutil.which(named or self.package)
        if named and found is None:
            raise RivalError(f"{variable} is {named}, which is not a program; name the {self.package} command, or unset it")
        return Path(found) if found else None

    def run(self, port: int, streams: int, requests: int, tokens: int, folder: Path, core: int | None = None) -> Reported:
        """Send `requests` requests of `tokens` tokens, `streams` at a time, to the truthserver at `port`. core: run on this core only.

        folder: for the rival's files. RivalError if it is not installed or fails. Lost requests are not a failure; see `succeeded`.
        """
        command = self.find()
        if command is None or self.read is None:
            raise RivalError(f"{self.package} is {'not installed' if command is None else 'compared by benchmarks/dialects.py only'}")
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{self.package}-") as name:
            own = Path(name)
            work = Work(f"http://127.0.0.1:{port}", streams, requests, tokens, own, write_tokenizer(own / "tokenizer"))
            pin = [] if core is None else ["taskset", "-c", str(core)]
            before = children_cpu_s()
            output = _run([*pin, *self.launcher(command), *self.arguments(work)], own)
            cpu_s = children_cpu_s() - before
            try:
                figures = self.read(own)
            except (OSError, LookupError, TypeError, ValueError) as error:
                raise RivalError(f"cannot read the report of {self.package} ({error!r}); its last output: {output}") from error
        return Reported(**asdict(figures), title=self.title(command), cpu_s=cpu_s)

    def title(self, command: Path) -> str:
        """Name and version of the distribution, from the interpreter of the command (not every rival reports its version)."""
        program = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
        argv = [str(interpreter(command)), "-c", program, self.package]
        name = self.name or self.package
        with suppress(OSError, subprocess.CalledProcessError):
            return f"{name} {subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()}"
        return f"{name}, unknown version"


def interpreter(command: Path) -> Path:
    """The interpreter of the environment of a command."""
    return command.resolve().parent / "python3"


def _run(argv: Sequence[str], folder: Path) -> str:
    """Run to the end in `folder` and return the end of the output. RivalError if it takes too long or its status is not 0."""
    # In offline mode AIPerf looks for a local folder in the hub cache; a proxy would be between rival and server.
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HOME": str(folder / "hub")}
    output = folder / "output.txt"  # not a pipe, which processes left by the rival would keep open
    with output.open("wb") as out:
        child = subprocess.Popen(argv, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        status = child.wait(TIME_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise RivalError(f"{shlex.join(argv)} did not finish within {TIME_LIMIT_S:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # including its workers
        child.wait()
    last = output.read_text(errors="replace")[-2000:]
    if status:
        raise RivalError(f"{shlex.join(argv)} ended with status {status}; its last output: {last}")
    return last


def children_cpu_s() -> float:
    """CPU seconds of all ended and reaped descendants."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer for which each event of truthserver (' tok') is one token, because some rivals count tokens in the text."""
    words = word_tokenizer()
    tokenizer = replace(words, tokens=(*words.tokens, "Ġtok"), merges=(*words.merges, "Ġto k"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN_END, "pad_token": END_OF_TEXT, "model_max_length": 131072}
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer.to_json()))
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def compared(reported: Reported, records: Sequence[Record], requests: int) -> dict[str, float]:
    """Reported minus true figures in ms, and figures of the server, with the names of client.py's table. ValueError without tokens.

    records: of the whole log; only the last `requests` count, because a rival may send test requests first. In the result, lost: requests
    that the rival does not count as successful; itl_p99: nan if the rival has none; window_s: from the first arrival to the last token.
    """
    counted = [record for record in sorted(records, key=lambda record: record[0])[-requests:] if len(record[1])]
    if not counted:
        raise ValueError("no request got a token")
    ttft = np.array([int(tokens[0]) - arrived for arrived, tokens in counted]) / 1e6
    gaps = np.concatenate([np.diff(tokens) for _, tokens in counted]) / 1e6
    window_ns = max(int(tokens[-1]) for _, tokens in counted) - counted[0][0]
    figures = {
        "ttft_mean": reported.ttft_mean_ms - ttft.mean(),
        "ttft_p50": reported.ttft_p50_ms - np.percentile(ttft, 50),
        "ttft_p99": reported.ttft_p99_ms - np.percentile(ttft, 99),
        "itl_p99": np.nan if reported.itl_p99_ms is None else reported.itl_p99_ms - np.percentile(gaps, 99),
        "lost": requests - reported.succeeded,
        "events": sum(len(tokens) for _, tokens in counted),
        "window_s": window_ns / 1e9,
        "cpu_s": reported.cpu_s,
    }
    return {key: float(value) for key, value in figures.items()}
