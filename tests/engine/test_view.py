"""`bench view`: who may ask, what is answered, how it ends; and that it follows a run of the fake engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import enginebench
import pytest
from enginebench.errors import UserError
from enginebench.records.live import Live, Process, write_live
from enginebench.records.run_folder import Run
from enginebench.report.site.server import Viewing

from ..small_runs import small_run  # noqa: TID252  # tests/ is no package
from .bench import Bench


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "results"
    for day in (1, 2):
        small_run(folder / f"2026-01-0{day}-night", f"2026-01-0{day}T02:00:00+00:00", streams=(4,))
    (folder / "secret.txt").write_text("secret: 42")
    (folder.parent / "outside.txt").write_text("secret: 42")
    return folder


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Viewing]:
    with enginebench.view(folder) as viewing:
        thread = threading.Thread(target=viewing.serve)
        thread.start()
        try:
            yield viewing
        finally:
            viewing.stop()
            thread.join()


@pytest.fixture(scope="module")
def viewing(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewing]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINEBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        with serving(results) as found:
            yield found


def ask(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and content. headers: Host replaces the usual one."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def test_pages_of_every_kind_are_answered(viewing: Viewing) -> None:
    for path, kind, part in (
        ("/", "text/html", "2026-01-02-night"),
        ("/index.html", "text/html", "2026-01-02-night"),
        ("/compare.html", "text/html", 'id="candidate"'),
        ("/runs/2026-01-01-night.html", "text/html", 'id="table"'),
        ("/data/index.json", "application/json", '"schema":1'),
        ("/data/runs/2026-01-01-night.json", "application/json", '"conclusion"'),
        ("/live.json", "application/json", '"running": []'),
    ):
        status, headers, text = ask(viewing.url, path)
        assert status == 200, path
        assert headers["content-type"].startswith(kind)
        assert part in text
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
    asset = re.findall(r'href="(assets/[^"]+)"', ask(viewing.url, "/")[2])[0]
    assert ask(viewing.url, f"/{asset}")[1]["cache-control"] == "max-age=31536000, immutable"


def test_it_listens_on_loopback_only(viewing: Viewing) -> None:
    assert viewing.server.server_address[0] == "127.0.0.1"
    with contextlib.suppress(socket.gaierror):
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            with pytest.raises(ConnectionError), socket.create_connection((own, viewing.server.server_port), timeout=2):
                pass


@pytest.mark.parametrize("host", ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:PORT", ""])
def test_another_host_is_refused(viewing: Viewing, host: str) -> None:
    """As a page of another site would send whose name was made to lead here (DNS rebinding)."""
    status, _, text = ask(viewing.url, "/", Host=host.replace("PORT", str(viewing.server.server_port)))
    assert status == 421
    assert "night" not in text


def test_this_host_is_answered_by_its_names_and_only_once(viewing: Viewing) -> None:
    port = viewing.server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert ask(viewing.url, "/live.json", Host=host)[0] == 200
    for lines in ("", f"Host: localhost:{port}\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW"])
def test_only_reading_is_allowed(viewing: Viewing, results: Path, method: str) -> None:
    before = sorted(results.rglob("*"))
    status, headers, _ = ask(viewing.url, "/runs/2026-01-01-night.html", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"
    assert sorted(results.rglob("*")) == before


def test_head_has_the_headers_alone(viewing: Viewing) -> None:
    status, headers, text = ask(viewing.url, "/live.json", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["content-length"]) > 10


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt", "/../outside.txt", "/runs/../../outside.txt", "/%2e%2e/outside.txt", "/runs/..%2f..%2foutside.txt", "//etc/passwd",
        "/etc/passwd", "/runs/2026-01-01-night/run.json", "/2026-01-01-night/run.json", "/runs/2026-01-01-night.json",
        "/assets/../secret.txt", "/\\..\\outside.txt",
        "/assets/", "/runs/", "/runs/.html", "/data/runs/..json", "/live/2026-01-01-night.json", "/runs/2026-01-01-night.html/",
        "/runs/2026-01-01-night.html%00", "/favicon.ico",
    ],
)  # fmt: skip
def test_other_paths_lead_nowhere(viewing: Viewing, path: str) -> None:
    status, _, text = ask(viewing.url, path)
    assert status == 404
    assert "secret" not in text


def test_a_request_that_is_none_is_refused(viewing: Viewing) -> None:
    port = viewing.server.server_port
    for line, answer in (
        (b"GET http://evil/ HTTP/1.1", b"400"),
        (b"\x16\x03\x01", b"400"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"414"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(line + f"\r\nHost: localhost:{port}\r\n\r\n".encode())
            assert answer in raw.recv(400)
    assert ask(viewing.url, "/live.json")[0] == 200


def test_links_out_of_the_folder_are_not_followed(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    run, outside = folder / "2026-01-01-night", tmp_path / "outside.txt"
    outside.write_text("secret: 42")
    with serving(folder) as viewing:
        assert ask(viewing.url, "/runs/2026-01-01-night.html")[0] == 200
        (run / "scenario.yaml").unlink()
        (run / "scenario.yaml").symlink_to(outside)
        assert ask(viewing.url, "/runs/2026-01-01-night.html")[0] == 404, "although it was served before"
        shutil.move(folder / "2026-01-02-night", tmp_path / "elsewhere")
        (folder / "2026-01-02-night").symlink_to(tmp_path / "elsewhere")
        assert ask(viewing.url, "/runs/2026-01-02-night.html")[0] == 404
        assert "night" not in ask(viewing.url, "/live.json")[2]


def test_a_run_that_cannot_be_read_says_why(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    shutil.copytree(results / "2026-01-01-night", tmp_path / "results" / "night")
    shutil.rmtree(tmp_path / "results" / "night" / "cells")
    (tmp_path / "results" / "night" / "cells").write_text("no folder")
    with serving(tmp_path / "results") as viewing:
        assert ask(viewing.url, "/")[0] == 200
        assert ask(viewing.url, "/runs/night.html")[0] in (200, 500)
        assert ask(viewing.url, "/")[0] == 200


def test_what_was_read_is_kept_for_the_next_time(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    with serving(results) as viewing:
        wait_for(lambda: json.loads(ask(viewing.url, "/data/index.json")[2])["runs"][-1]["answer"] != "")
        wait_for(lambda: list((tmp_path / "home" / "view").glob("*.json")) != [])
    with serving(results) as viewing:
        assert all(run["answer"] for run in json.loads(ask(viewing.url, "/data/index.json")[2])["runs"]), "at once"


def test_lasting_changes_are_named_when_all_is_read(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    kinds = [small_run(tmp_path / "kinds" / str(slower), "2026-01-01T00:00:00+00:00", slower=slower, streams=(4,)) for slower in (1.0, 1.4)]
    for i in range(16):
        run = Run(Path(shutil.copytree(kinds[i >= 8].path, tmp_path / "results" / f"night-{i:02d}")))
        run.update(replace(run.record, created_at=f"2026-03-{1 + i:02d}T02:00:00+00:00"))
    for _ in range(2):  # the second time from what is kept
        with serving(tmp_path / "results") as viewing:
            wait_for(lambda: "worse: 2026-03-09 vllm tok/s" in ask(viewing.url, "/")[2])


def test_no_run_is_read_while_another_goes_on(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    shutil.copytree(results, tmp_path / "results")
    run = tmp_path / "results" / "2026-01-02-night"
    write_live(run, Live(Process.own(), "measuring", 9, 8, "llamacpp"))
    with serving(tmp_path / "results") as viewing:
        time.sleep(2.5)
        assert [each["answer"] for each in json.loads(ask(viewing.url, "/data/index.json")[2])["runs"]] == ["", ""]
        assert "8 of 9 cells stored" in ask(viewing.url, "/")[2]
        assert "8 of 9 cells stored" in ask(viewing.url, "/live/2026-01-02-night.html")[2]
        (run / "live.json").unlink()
        wait_for(lambda: all(each["answer"] for each in json.loads(ask(viewing.url, "/data/index.json")[2])["runs"]))
        status, headers, _ = ask(viewing.url, "/live/2026-01-02-night.html")
        assert (status, headers["location"]) == (302, "../runs/2026-01-02-night.html")


def test_bad_folders_and_ports_are_one_sentence(results: Path, tmp_path: Path, viewing: Viewing) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        enginebench.view(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be used"):
        enginebench.view(results, port=viewing.server.server_port)


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def viewed(bench: Bench, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`bench view` as a user starts it, with the address that it prints."""
    process = bench.start("view", *arguments)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_0_on_ctrl_c(bench: Bench, results: Path, how: signal.Signals) -> None:
    with viewed(bench, str(results)) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        assert ask(url, "/")[0] == 200
        process.send_signal(how)
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_single_run_is_opened_at_its_page(bench: Bench, results: Path) -> None:
    with viewed(bench, str(results / "2026-01-01-night")) as (_, url):
        assert url.endswith("/runs/2026-01-01-night.html")
        assert ask(url, urlsplit(url).path)[0] == 200


def test_a_folder_that_is_not_there_is_exit_code_2(bench: Bench) -> None:
    done = bench("view", "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 3


def test_it_follows_a_run(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 20, itl_ms: 30}", repeats=2)
    (bench.folder / "results").mkdir()
    with viewed(bench, "results") as (_, url):
        run = bench.start("run", scenario, "--no-html")
        try:
            wait_for(lambda: json.loads(ask(url, "/live.json")[2])["running"] != [])
            slug = json.loads(ask(url, "/live.json")[2])["running"][0]
            steps, counts = set(), set()
            while run.poll() is None:
                status, _, text = ask(url, f"/live/{slug}.html")
                if status == 200:
                    steps.add(re.findall(r'<h2 id="step">([^<·]+)', text)[0].strip())
                    counts.add(int(re.findall(r"(\d+) of 4 cells stored", text)[0]))
                time.sleep(0.05)
            assert "measuring" in steps
            assert len(counts) >= 3, "cells appear as they end"
        finally:
            out, err = run.communicate()
        assert run.returncode == 0, err
        assert out
        wait_for(lambda: ask(url, f"/live/{slug}.html")[0] == 302)
        assert not (bench.run_folder() / "live.json").exists()
        wait_for(lambda: json.loads(ask(url, "/data/index.json")[2])["runs"][0]["answer"] != "")


def test_a_run_that_was_killed_is_not_going_on(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 20, itl_ms: 30}", repeats=2)
    run = bench.start("run", scenario, "--no-html")
    bench.wait_for_cells(1)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert (bench.run_folder() / "live.json").exists()
    with viewed(bench, str(bench.run_folder())) as (_, url):
        assert "/runs/" in url
        assert json.loads(ask(url, "/live.json")[2])["running"] == []
    assert bench("run", scenario, "--no-html").returncode == 0
    assert not (bench.run_folder() / "live.json").exists()
