"""Other load generators, where they are installed, against truthserver, and what they report of it.

A rival is a command on PATH, or the file that an environment variable names: ENGINEBENCH_RIVAL_GUIDELLM=/somewhere/bin/guidellm
(likewise INFERENCE_PERF, AIPERF, EVALSCOPE, VLLM, SGLANG). Each runs with its defaults but for what makes the work the same: closed loop,
completions, streamed, 64 tokens in, nothing from the network. Their requests carry no id, so `compared` sets a rival's own mean
and percentiles against the same figures of the server's log, not request against request. Knows nothing of our load generator.
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
"""One request in the server's log: when it had been read, and when each of its tokens was sent (int64 array); monotonic ns."""


class RivalError(Exception):
    """A rival that cannot be run or left no report; the sentence says which, and ends with its last words."""


@dataclass(frozen=True)
class Figures:
    """What stands in a rival's report. succeeded: requests that it counts as a success; times in ms.

    itl_p99_ms: of the gaps between events; None where it has only one mean of each request.
    """

    succeeded: int
    ttft_mean_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p99_ms: float | None


@dataclass(frozen=True)
class Reported(Figures):
    """The figures, whose they are (name and version) and what they cost.

    cpu_s: processor seconds of all the rival's processes, imports and making of prompts included; take a short run of one stream
    off it to get the price of the load.
    """

    title: str
    cpu_s: float


@dataclass(frozen=True)
class Work:
    """What a rival is told to do. folder: its own, empty; tokenizer: a Hugging Face folder where an event is one token."""

    url: str
    streams: int
    requests: int
    tokens: int
    folder: Path
    tokenizer: Path


@dataclass(frozen=True)
class Rival:
    """package: the distribution, and the command that it installs. arguments: of the command. read: the report left in the work's
    folder. name: in tables, without the version. launcher: the argv prefix that measures, by the path of the command."""

    package: str
    arguments: Callable[[Work], list[str]]
    read: Callable[[Path], Figures]
    name: str = ""
    launcher: Callable[[Path], list[str]] = lambda command: [str(command)]

    def find(self) -> Path | None:
        """The command; None where it is not installed. RivalError when its variable names no program."""
        variable = f"ENGINEBENCH_RIVAL_{self.package.upper().replace('-', '_')}"
        named = os.environ.get(variable)
        found = shutil.which(named or self.package)
        if named and found is None:
            raise RivalError(f"{variable} is {named}, which is no program; name the {self.package} command, or unset it")
        return Path(found) if found else None

    def run(self, port: int, streams: int, requests: int, tokens: int, folder: Path, core: int | None = None) -> Reported:
        """Send `requests` requests of `tokens` tokens, `streams` at a time, to the truthserver at `port`; on one core where given.

        folder: receives the rival's files. RivalError when it is not installed or fails. That it lost requests is no
        failure: `succeeded` tells.
        """
        command = self.find()
        if command is None:
            raise RivalError(f"{self.package} is not installed")
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{self.package}-") as name:
            own = Path(name)
            work = Work(f"http://127.0.0.1:{port}", streams, requests, tokens, own, write_tokenizer(own / "tokenizer"))
            pin = [] if core is None else ["taskset", "-c", str(core)]
            before = children_cpu_s()
            said = _finished([*pin, *self.launcher(command), *self.arguments(work)], own)
            cpu_s = children_cpu_s() - before
            try:
                figures = self.read(own)
            except (OSError, LookupError, TypeError, ValueError) as error:
                raise RivalError(f"{self.package} left no report that can be read ({error!r}); its last words: {said}") from error
        return Reported(**asdict(figures), title=self.title(command), cpu_s=cpu_s)

    def title(self, command: Path) -> str:
        """Name and version: that of the distribution, asked from the interpreter beside the command, as not every rival tells its own."""
        program = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
        argv, name = [interpreter(command), "-c", program, self.package], self.name or self.package
        with suppress(OSError, subprocess.CalledProcessError):
            return f"{name} {subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()}"
        return f"{name} of an unknown version"


def interpreter(command: Path) -> Path:
    """The interpreter of the environment that a command is installed in."""
    return command.resolve().parent / "python3"


def _finished(argv: Sequence[str], folder: Path) -> str:
    """Run to the end in `folder`; returns the last that it printed. RivalError when it takes too long or its status is not 0."""
    # Offline mode makes AIPerf look for a local folder in the hub's cache; a proxy would stand between rival and server.
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HOME": str(folder / "hub")}
    output = folder / "output.txt"  # a pipe would stay open as long as any process that the rival left behind
    with output.open("wb") as out:
        child = subprocess.Popen(argv, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        status = child.wait(TIME_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise RivalError(f"{shlex.join(argv)} was not done after {TIME_LIMIT_S:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # its workers too
        child.wait()
    said = output.read_text(errors="replace")[-2000:]
    if status:
        raise RivalError(f"{shlex.join(argv)} ended with status {status}; its last words: {said}")
    return said


def children_cpu_s() -> float:
    """Processor seconds of all children that have ended and been waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer that reads each of truthserver's events (' tok') as one token: some rivals count tokens in the text."""
    words = word_tokenizer()
    tokenizer = replace(words, tokens=(*words.tokens, "Ġtok"), merges=(*words.merges, "Ġto k"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN_END, "pad_token": END_OF_TEXT, "model_max_length": 131072}
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer.to_json()))
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def compared(reported: Reported, records: Sequence[Record], requests: int) -> dict[str, float]:
    """Reported minus true, in ms, and what the server saw: under the names that client.py's table uses.

    records: of the whole log; only the last `requests` to arrive count, for a rival may try the connection first. lost: requests
    that the rival does not call a success. The p99 of the gaps is nan where the rival has none. window_s: from the first arrival to
    the last token. ValueError when no request got a token.
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
