"""Real servers on loopback for one test module: an S3 server, PostgreSQL. Ended by their own handles."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


def missing(what: str) -> None:
    """Skips on a user's machine, and fails in CI, where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            missing(f"needs the package {package}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class S3:
    """Moto's server in a process of its own. Its content is lost when it ends."""

    port: int
    process: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{self.port}'])"
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "the S3 server has ended"
            time.sleep(0.05)
        pytest.fail("the S3 server does not listen")

    def pause(self, signal: int) -> None:
        assert self.process is not None
        self.process.send_signal(signal)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def s3() -> Iterator[S3]:
    need("moto", "s3fs", "flask")
    server = S3(free_port())
    server.env = {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
    }  # fmt: skip
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass
class PostgreSQL:
    """A cluster in a folder of its own, reached over loopback."""

    folder: Path
    port: int
    tools: Path
    user: str
    as_user: tuple[str, ...]

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, database)
        return self.url(database)

    def run(self, tool: str, *arguments: str) -> str:
        command = [*self.as_user, str(self.tools / tool), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """PostgreSQL refuses to run as root, so it runs as the user that Debian's package made, or as nobody."""
    need("sqlalchemy", "alembic", "psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        missing("needs PostgreSQL: apt-get install postgresql")
    tools, port = found[-1].parent, free_port()
    folder.mkdir(parents=True, exist_ok=True)
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        name = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, name)
        as_user = ("setpriv", "--reuid", name, "--regid", str(pwd.getpwnam(name).pw_gid), "--clear-groups")
    server = PostgreSQL(folder, port, tools, "tester", as_user)
    server.run("initdb", "-D", str(folder / "data"), "-U", server.user, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")
    options = ["-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*as_user, str(tools / "postgres"), *options], stdout=log, stderr=log, cwd=folder)
    try:
        end = time.monotonic() + 30
        while subprocess.run([str(tools / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)], capture_output=True).returncode:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def relay(to: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """A port that leads to another one, until it is cut: from then on it refuses, as a network does that is gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", to))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    def cut() -> None:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], cut
    finally:
        cut()
