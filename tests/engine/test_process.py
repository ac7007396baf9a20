"""Real processes under the guardian: they start, become ready, die in every way there is, and never outlive their harness."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from enginebench.adapter import Adapter, Deployment, Install, Launch, Site
from enginebench.errors import UserError
from enginebench.runtime import (
    EngineProcess,
    LaunchFailed,
    free_port,
    guardian,
    http_get,
    http_get_url,
    leases,
    leftovers,
    sweep,
    unique_tag,
    verify_listener,
    wait_ready,
)
from enginebench.runtime.environment import environment
from enginebench.runtime.exit_status import describe_exit, log_tail

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER")

SERVER = """
import http.server, os, signal, subprocess, sys, time
port, *words = sys.argv[1:]
print("loading", flush=True)
if "deaf" in words:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "family" in words:  # a child, a grandchild in a session of its own, and an orphan whose parent is gone
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    subprocess.Popen(sleep)
    subprocess.Popen([sys.executable, "-S", "-c", f"import subprocess; subprocess.Popen({sleep!r}, start_new_session=True).wait()"])
    subprocess.run([sys.executable, "-S", "-c", f"import subprocess; subprocess.Popen({sleep!r}, start_new_session=True)"])
if "child" in words:
    print(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]).pid, flush=True)
if "crash" in words:
    print("no such model", file=sys.stderr); sys.exit(3)
if "hang" in words:
    time.sleep(60)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            signal.raise_signal(signal.SIGSEGV)  # this very thread: no answer can slip out
        self.send_response(500 if "broken" in words else 200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


class Plain(Adapter):
    """An engine with nothing but /health."""

    name = "plain"
    title = "Plain"

    def find(self, python: Path | None) -> list[Install]:
        return []

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        raise AssertionError("these tests start their own processes")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(tmp_path / "leases"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site("127.0.0.1", free_port(), tmp_path / "site", "none")


def server(site: Site, *words: str) -> Launch:
    return Launch((sys.executable, "-S", "server.py", str(site.port), *words), "m", files={"server.py": SERVER})


def start(site: Site, *words: str, tag: str | None = None) -> EngineProcess:
    return EngineProcess.start(server(site, *words), site, log=site.folder / "engine.log", tag=tag or unique_tag("test"))


def ready(site: Site, engine: EngineProcess, timeout_s: float = 5.0) -> float:
    return wait_ready(Plain(), http_get(site.host, site.port), engine, timeout_s)


def soon(true: Callable[[], bool], within_s: float = 1.0) -> bool:
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def gone(*pids: int) -> bool:
    return all(leftovers.born(pid) is None for pid in pids)


# -- an orderly life -----------------------------------------------------------------------------------------------------------


def test_ready_then_stopped(site: Site) -> None:
    with start(site) as engine:
        ready(site, engine)
        assert engine.alive
        assert engine.pids() == [engine.pid]
        assert verify_listener(site.port, engine.pids()).kind == "proven"
        assert os.getsid(engine.pid) == engine.pid != os.getsid(0)
        [lease] = leases()
        assert lease.live
        assert lease.engine == leftovers.identity(engine.pid)
    assert not engine.alive
    assert engine.ending == "stopped by the harness (killed by SIGTERM)"
    assert gone(engine.pid)
    assert engine.log_tail() == "loading"
    assert leases() == []
    engine.stop()  # once more does nothing


def test_talking_over_stdin_and_stdout(site: Site) -> None:
    code = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)\nprint('done', file=sys.stderr)"
    launch = Launch((sys.executable, "-S", "-c", code), "m")
    with EngineProcess.start(launch, site, log=site.folder / "log", tag=unique_tag("talk"), piped=True) as engine:
        assert engine.stdin is not None
        assert engine.stdout is not None
        engine.stdin.write(b"hello\n")
        engine.stdin.flush()
        assert engine.stdout.readline() == b"HELLO\n"
        engine.stdin.close()
        assert engine.stdout.read() == b""  # nobody but the engine holds the stream open
        assert engine.wait(2.0)
        assert engine.ending == "exited with code 0"
    assert engine.log_tail() == "done"


def test_the_environment_is_an_explicit_list() -> None:
    shell = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "64", "VLLM_USE_V1": "0", "EDITOR": "vi", "HF_HOME": "/hf"}
    seen = environment(Launch((), "m", env={"HF_HOME": "/mine", "A": "b"}), "tag", shell)
    assert {name: seen[name] for name in ("PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME", "A")} == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "HF_HOME": "/mine",
        "A": "b",
    }
    assert seen[leftovers.MARKER] == "tag"
    assert "SPT_NOENV" in seen  # without it setproctitle wipes the marker out of /proc/<pid>/environ
    assert not {"OMP_NUM_THREADS", "VLLM_USE_V1", "EDITOR"} & seen.keys()


def test_files_stay_in_the_launch_folder(site: Site) -> None:
    with pytest.raises(ValueError, match="must be below the launch"):
        EngineProcess.start(Launch(("true",), "m", files={"../x": ""}), site, log=site.folder / "log", tag="t")


# -- the ways to fail ----------------------------------------------------------------------------------------------------------


def test_exit_at_start_is_told_with_the_log(site: Site) -> None:
    with start(site, "crash") as engine, pytest.raises(LaunchFailed) as failed:
        ready(site, engine)
    assert failed.value.reason == "exited with code 3 before it was ready"
    assert failed.value.log_tail.splitlines() == ["loading", "no such model"]


def test_never_ready(site: Site) -> None:
    with start(site, "hang") as engine, pytest.raises(LaunchFailed, match=r"not ready after 0\.3 s; the last GET /health failed"):
        ready(site, engine, 0.3)


def test_broken(site: Site) -> None:
    with start(site, "broken") as engine, pytest.raises(LaunchFailed, match="will not become ready; the last GET /health returned 500"):
        ready(site, engine)


def test_a_program_that_is_not_there(site: Site) -> None:
    with pytest.raises(LaunchFailed, match="no-such-engine: No such file or directory"):
        EngineProcess.start(Launch(("no-such-engine",), "m"), site, log=site.folder / "log", tag="t")
    assert leases() == []


def test_death_while_serving_wakes_the_waiter(site: Site) -> None:
    with start(site) as engine:
        ready(site, engine)
        assert http_get(site.host, site.port)("/die").status == 0
        assert engine.wait(5.0)
        assert engine.ending == "killed by SIGSEGV"
        assert http_get(site.host, site.port)("/health").status == 0


def test_a_sigkill_from_outside_hints_at_memory(site: Site) -> None:
    with start(site) as engine:
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.wait(2.0)
        assert engine.ending == "killed by SIGKILL (out of memory?)"


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exited with code 0"), (-4, "killed by SIGILL (built for another CPU?)"), (-99, "killed by signal 99")]
)
def test_endings_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


def test_log_tail_drops_colours_and_progress(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\nload 1%\rload 99%\r\n\x1b[31mError\x1b[0m: \xff\n\n")
    assert log_tail(log, 2) == "load 99%\nError: �"
    assert log_tail(tmp_path / "none", 2) == ""


# -- the whole tree ends -------------------------------------------------------------------------------------------------------


@linux_only
def test_stop_ends_descendants_that_left_the_group_or_lost_their_parent(site: Site) -> None:
    with start(site, "family") as engine:
        ready(site, engine)
        assert soon(lambda: len(engine.pids()) == 5, 5.0)
        tree = engine.pids()
    assert gone(*tree)


@pytest.mark.clock
def test_an_engine_deaf_to_sigterm_is_killed_after_the_grace(site: Site) -> None:
    engine = start(site, "deaf")
    ready(site, engine)
    began = time.monotonic()
    engine.stop(grace_s=0.2)
    assert 0.2 <= time.monotonic() - began < 1.0
    assert engine.ending == "stopped by the harness (killed by SIGKILL)"


@linux_only
def test_what_a_dead_engine_leaves_is_ended(site: Site) -> None:
    with start(site, "family", "crash") as engine:
        assert engine.wait(5.0)
        assert soon(lambda: engine.pids() == [], 2.0)


@pytest.mark.clock
def test_where_only_the_process_group_is_known(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guardian's way on systems that are not Linux, tried wherever this runs."""
    other = tmp_path / "guardian.py"
    text = Path(guardian.__file__).read_text()
    assert 'LINUX = sys.platform == "linux"' in text
    other.write_text(text.replace('LINUX = sys.platform == "linux"', "LINUX = False"))
    monkeypatch.setattr(guardian, "__file__", str(other))
    with start(site, "deaf") as engine:
        ready(site, engine)
        child = engine.pid
        began = time.monotonic()
        engine.stop(0.1)
        assert time.monotonic() - began < 1.0
    assert gone(child)
    with start(site, "child", "crash") as engine:
        assert engine.wait(5.0)
        worker = int(engine.log_tail().splitlines()[1])
        assert soon(lambda: gone(worker), 2.0)
        engine._guardian.kill()  # a zombie that its new parent is slow to collect still counts as the group here
        assert engine.ending == "exited with code 3"


HARNESS = """
import sys, time
from pathlib import Path
from enginebench.adapter import Launch, Site
from enginebench.runtime import EngineProcess
folder, tag, *argv = sys.argv[1:]
site = Site("127.0.0.1", 1, Path(folder), "none")
engine = EngineProcess.start(Launch(tuple(argv), "m"), site, log=Path(folder) / "log", tag=tag)
print(engine.pid, engine._guardian.pid, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def harness(folder: Path, tag: str, code: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A harness of its own that started one engine: (harness, engine pid, guardian pid)."""
    command = [sys.executable, "-c", HARNESS, str(folder), tag, sys.executable, "-S", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        engine, guardian = map(int, process.stdout.readline().split())
        try:
            yield process, engine, guardian
        finally:
            process.kill()


DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", DEAF], ids=["polite", "deaf"])
def test_an_engine_does_not_outlive_a_killed_harness(tmp_path: Path, code: str) -> None:
    with harness(tmp_path, "orphan", code) as (process, engine, guardian):
        process.kill()
        assert soon(lambda: gone(engine, guardian), 1.0)
    process.wait()
    assert sweep() == []  # there was nothing left to end
    assert leases() == []


@linux_only
def test_an_engine_does_not_outlive_a_killed_guardian(site: Site) -> None:
    with start(site, "family") as engine:
        ready(site, engine)
        assert soon(lambda: len(engine.pids()) == 5, 5.0)
        tree = engine.pids()
        engine._guardian.kill()
        assert soon(lambda: gone(engine.pid), 1.0)
        assert not engine.alive
        assert engine.ending == "lost with its guardian"
        assert gone(*tree)  # nobody told them: they were found by their marker
    assert leases() == []


# -- leftovers -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bystander() -> Iterator[Callable[[str | None], subprocess.Popen[bytes]]]:
    """Starts processes that carry a launch's marker, or none, in their environment."""
    with contextlib.ExitStack() as stack:

        def begin(marker: str | None) -> subprocess.Popen[bytes]:
            env = {**os.environ, leftovers.MARKER: marker} if marker else None
            process = stack.enter_context(subprocess.Popen(["sleep", "60"], env=env))
            stack.callback(process.kill)
            return process

        yield begin


def abandoned(tag: str, engine: leftovers.Identity | None, folder: Path) -> None:
    """The lease of a harness that is no longer there: nobody has it locked."""
    said = {"engine": asdict(engine)} if engine else {}
    file = folder / "leases" / f"{leftovers.PREFIX}{tag}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(said))


def test_sweep_ends_what_is_provably_ours(tmp_path: Path, bystander: Callable[[str | None], subprocess.Popen[bytes]]) -> None:
    engine, worker, other = bystander("mine"), bystander("mine"), bystander("another")
    abandoned("mine", leftovers.identity(engine.pid), tmp_path)
    said = sweep()
    assert sorted(said) == sorted(f"ended process {p.pid} (sleep) of launch mine" for p in (engine, worker))
    assert (engine.wait(1), worker.wait(1), other.poll()) == (-signal.SIGTERM, -signal.SIGTERM, None)
    assert leases() == []


def test_sweep_leaves_a_reused_pid_alone(tmp_path: Path, bystander: Callable[[str | None], subprocess.Popen[bytes]]) -> None:
    later = bystander("another")
    abandoned("mine", leftovers.Identity(later.pid, "an earlier birth"), tmp_path)
    assert sweep() == []
    assert later.poll() is None
    assert leases() == []


def test_sweep_leaves_a_process_without_the_marker_alone(
    tmp_path: Path, bystander: Callable[[str | None], subprocess.Popen[bytes]]
) -> None:
    unmarked = bystander(None)
    abandoned("mine", leftovers.identity(unmarked.pid), tmp_path)
    assert sweep() == [f"left process {unmarked.pid} of launch mine alone: its environment does not show that enginebench started it"]
    assert unmarked.poll() is None


def test_sweep_leaves_live_harnesses_alone(site: Site) -> None:
    with start(site, "hang", tag="live") as engine:
        assert sweep() == []
        assert engine.alive
        with pytest.raises(UserError, match="a launch tagged live is already running"):
            start(site, "hang", tag="live")
        assert engine.alive


# -- identity and GET ------------------------------------------------------------------------------------------------------------


def test_a_foreign_server_on_the_port_is_told(site: Site) -> None:
    foreign = http.server.ThreadingHTTPServer((site.host, site.port), http.server.SimpleHTTPRequestHandler)
    with foreign, start(site, "hang") as engine:
        proof = verify_listener(site.port, engine.pids())
    name = psutil.Process().name()
    assert proof.kind == "foreign"
    assert proof.text == f"process {os.getpid()} ({name}) listens on port {site.port} instead of the started engine"


def test_a_port_without_listener_proves_nothing(site: Site) -> None:
    with start(site, "hang") as engine:
        assert verify_listener(site.port, engine.pids()).kind == "unknown"


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8000", "http://", "http://x:port", "http://x/#part"])
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(UserError, match="invalid base URL"):
        http_get_url(url)


def test_get_with_prefix_headers_and_nobody_there() -> None:
    seen: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["X-Key"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.handle_request)
        thread.start()
        get = http_get_url(f"http://127.0.0.1:{one.server_port}/base/", headers={"X-Key": "k"})
        assert get("/v1/models").status == 204
        thread.join()
    assert seen == [("/base/v1/models", "k")]
    nobody = get("/v1/models")
    assert (nobody.status, nobody.json()) == (0, None)
    assert b"refused" in nobody.body


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.clock
@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
        (HEAD + b"Connection: close\r\n\r\n", b"x"),
        (HEAD, b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "until close", "head", "100 continue"],
)
def test_a_get_has_an_end_whatever_keeps_coming(begin: bytes, more: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            client, _ = door.accept()
            with client, contextlib.suppress(OSError):
                client.recv(4096)
                client.sendall(begin)
                while True:
                    client.sendall(more)
                    time.sleep(0.05)

        threading.Thread(target=serve, daemon=True).start()
        started = time.monotonic()
        reply = http_get("127.0.0.1", door.getsockname()[1], timeout_s=0.3)("/slow")
        assert time.monotonic() - started < 3
    assert (reply.status, reply.body) == (0, b"not complete after 0.6 s")
