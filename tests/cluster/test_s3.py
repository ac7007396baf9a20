"""`bench run --results s3://...` against a real S3 server on loopback: interrupted, without the server, and with two writers."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from enginebench.records.remote.filesystem import RemoteFolder

from tests.cluster.servers import S3, relay, s3
from tests.engine.bench import Bench

QUICK = "options: {ttft_ms: 5, itl_ms: 2}"
pytestmark = pytest.mark.cluster
CELLS = 4


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3() as started:
        yield started


@pytest.fixture
def bucket(server: S3, request: pytest.FixtureRequest) -> str:
    import boto3

    name = f"b{abs(hash(request.node.name)) % 10**9}"
    os.environ.update(server.env)
    boto3.client("s3", endpoint_url=server.env["AWS_ENDPOINT_URL"], region_name="us-east-1").create_bucket(Bucket=name)
    return f"s3://{name}/nights"


def machine(tmp_path: Path, name: str, server: S3) -> Bench:
    """`bench` on a machine of its own."""
    (tmp_path / name).mkdir()
    found = Bench(tmp_path / name)
    found.env |= server.env
    return found


def keys(server: S3, url: str) -> list[str]:
    import boto3

    client = boto3.client("s3", endpoint_url=server.env["AWS_ENDPOINT_URL"], region_name="us-east-1")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return sorted(each["Key"] for each in client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []))


def cells(server: S3, url: str) -> list[str]:
    return [key for key in keys(server, url) if "/cells/" in key]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_is_in_the_store_and_every_machine_reads_it(server: S3, bucket: str, tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one", server), machine(tmp_path, "two", server)
    done = one("run", one.scenario(QUICK, repeats=2), "--results", bucket, "--no-html")
    assert done.returncode == 0, done.stderr
    assert len(cells(server, bucket)) == CELLS
    assert not [key for key in keys(server, bucket) if ".part" in key]
    assert not (one.folder / "results").exists()
    listed = two("list", bucket)
    assert f"1 run in {bucket}" in listed.stdout, listed.stderr
    assert "4/4 ok" in listed.stdout
    (run,) = {key.split("/")[1] for key in keys(server, bucket)}
    for arguments in (
        ["report", f"{bucket}/{run}"],
        ["export", f"{bucket}/{run}", "--to", "csv", "-o", "-"],
        ["site", bucket, "-o", "public"],
    ):
        assert two(*arguments).returncode == 0
    again = one("run", "s.yaml", "--results", bucket, "--no-html")
    assert again.returncode == 0, "a finished run is not resumed: a second one begins"
    assert len(cells(server, bucket)) == 2 * CELLS
    assert two("history", bucket).returncode == 0


def test_a_killed_run_is_resumed_by_another_machine_of_its_kind(server: S3, bucket: str, tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one", server), machine(tmp_path, "two", server)
    scenario = one.scenario("options: {ttft_ms: 5, itl_ms: 20}", repeats=2)
    process = one.start("run", scenario, "--results", bucket, "--no-html")
    wait_for(lambda: len(cells(server, bucket)) >= 1, process)
    process.kill()
    process.communicate()
    one("clean")
    stored = cells(server, bucket)
    assert 1 <= len(stored) < CELLS
    two.scenario("options: {ttft_ms: 5, itl_ms: 20}", repeats=2)
    done = two("run", "s.yaml", "--results", bucket, "--no-html")
    assert done.returncode == 0, done.stderr
    assert f"{len(stored)} of {CELLS} cells are stored" in done.stderr
    assert len(cells(server, bucket)) == CELLS
    assert len({key.split("/")[1] for key in keys(server, bucket)}) == 1, "it is the same run"


def test_two_writers_of_one_run(server: S3, bucket: str, tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one", server), machine(tmp_path, "two", server)
    slow = "options: {ttft_ms: 5, itl_ms: 40}"
    process = one.start("run", one.scenario(slow, repeats=2), "--results", bucket, "--no-html")
    wait_for(lambda: cells(server, bucket), process)
    two.scenario(slow, repeats=2)
    refused = two("run", "s.yaml", "--results", bucket, "--no-html")
    assert refused.returncode == 2
    assert "another bench is writing to" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 4
    assert process.wait(60) == 0
    process.communicate()
    assert len(cells(server, bucket)) == CELLS
    fresh = two("run", "s.yaml", "--results", bucket, "--no-html", "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert len({key.split("/")[1] for key in keys(server, bucket)}) == 2


def test_without_the_server_in_the_middle_everything_stays_here_and_is_uploaded_next_time(server: S3, bucket: str, tmp_path: Path) -> None:
    one = machine(tmp_path, "one", server)
    scenario = one.scenario("options: {ttft_ms: 5, itl_ms: 20}", repeats=2)
    with relay(server.port) as (port, cut):
        one.env |= dict.fromkeys(("AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL"), f"http://127.0.0.1:{port}")
        process = one.start("run", scenario, "--results", bucket, "--no-html")
        wait_for(lambda: cells(server, bucket), process)
        cut()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors.count("the run goes on, and its cells stay in") == 1
    assert "the next bench run with these --results uploads them" in errors
    assert len(cells(server, bucket)) < CELLS
    one.env |= server.env
    done = one("run", "s.yaml", "--results", bucket, "--no-html")
    assert done.returncode == 0, done.stderr
    assert "which were kept on this machine" in done.stderr
    runs = {key.split("/")[1] for key in keys(server, bucket)}
    assert len(cells(server, bucket)) == CELLS * len(runs)


def test_a_server_that_cannot_be_reached_at_the_start_is_one_sentence(tmp_path: Path, server: S3, bucket: str) -> None:
    one = machine(tmp_path, "one", server)
    one.env |= dict.fromkeys(("AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL"), "http://127.0.0.1:9")
    for arguments in (("run", one.scenario(QUICK), "--results", bucket), ("list", bucket)):
        done = one(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "error: s3://" in done.stderr
        assert "cannot be" in done.stderr
    wrong = machine(tmp_path, "two", server)
    missing = wrong("list", "s3://no-such-bucket-here/x")
    assert missing.returncode == 2, missing.stdout
    assert "Traceback" not in missing.stderr


def test_of_many_that_create_one_file_at_once_one_succeeds(server: S3, bucket: str) -> None:
    """What leases rest on: the server decides."""
    barrier = threading.Barrier(8)

    def create(i: int) -> bool:
        folder = RemoteFolder(bucket)
        barrier.wait()
        return folder.create("night/.writer-000001.json", str(i).encode())

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(8)))
    assert made.count(True) == 1
    assert RemoteFolder(bucket).read("night/.writer-000001.json") == str(made.index(True)).encode()
