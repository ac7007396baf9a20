"""`bench run --otlp URL` against a receiver that decodes what it gets with OpenTelemetry's own classes."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import enginebench as eb
import pytest

from tests.cluster.servers import need
from tests.engine.bench import Bench

pytestmark = pytest.mark.cluster
REQUESTS = 8


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, str, bytes]] = []

    def metrics(self) -> dict[str, list[Any]]:
        """Name -> its data points, in the order of arrival."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        found: dict[str, list[Any]] = {}
        for _, _, body in self.got:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                assert names["service.name"] == "enginebench"
                for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                    data = getattr(metric, metric.WhichOneof("data"))
                    found.setdefault(metric.name, []).extend((metric.unit, point) for point in data.data_points)
        return found


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers["Content-Type"], body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's word
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    need("opentelemetry.proto", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def about(point: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in point.attributes}


def test_a_receiver_gets_what_the_run_stored(receiver: Receiver, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    url = f"http://127.0.0.1:{receiver.server_port}"
    done = bench("run", bench.scenario("options: {ttft_ms: 20, itl_ms: 5}"), "--no-html", "--otlp", url)
    assert done.returncode == 0, done.stderr
    assert {(path, kind) for path, kind, _ in receiver.got} == {("/v1/metrics", "application/x-protobuf")}
    found = receiver.metrics()
    run = eb.open_run(bench.run_folder())
    cells = {cell.record.id: cell for row in run.analysis.rows for cell in row.cells}
    assert len(cells) == 2
    for unit, point in found["gen_ai.client.operation.duration"]:
        its = about(point)
        assert (unit, point.count, sum(point.bucket_counts)) == ("s", REQUESTS, REQUESTS)
        assert (its["gen_ai.operation.name"], its["gen_ai.request.model"], its["gen_ai.provider.name"]) == (
            "text_completion",
            "any",
            "fake",
        )
        taken = run.requests[run.requests.cell == its["enginebench.cell"]]
        assert point.sum == pytest.approx((taken.end_s - taken.sent_s).sum(), rel=1e-6)
    for _, point in found["gen_ai.client.operation.time_to_first_chunk"]:
        taken = run.requests[run.requests.cell == about(point)["enginebench.cell"]]
        assert point.sum == pytest.approx(taken.ttft.sum(), rel=1e-6)
        assert point.max == pytest.approx(taken.ttft.max(), rel=1e-6)
    assert all(point.count == REQUESTS * 7 for _, point in found["gen_ai.client.operation.time_per_output_chunk"])
    tokens = {about(point)["gen_ai.token.type"]: point.sum for _, point in found["gen_ai.client.token.usage"]}
    assert tokens == {"input": REQUESTS * 16, "output": REQUESTS * 8}
    for _, point in found["enginebench.output_throughput"]:
        cell = cells[about(point)["enginebench.cell"]]
        assert point.as_double == pytest.approx(cell.figures["output_throughput"])
    assert {about(point)["enginebench.status"] for _, point in found["enginebench.cell.status"]} == {"ok"}
    done_cells = [point.as_double for _, point in found["enginebench.run.cells"] if about(point)["enginebench.state"] == "stored"]
    assert done_cells == [0, 1, 2], "live: after each cell"
    assert found["enginebench.cell.requests"], "live: while it is measured"


def test_a_collector_that_is_not_there_costs_one_sentence(tmp_path: Path) -> None:
    need("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
    bench = Bench(tmp_path)
    done = bench("run", bench.scenario("options: {ttft_ms: 5, itl_ms: 2}"), "--no-html", "--otlp", "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("metrics cannot be sent") == 1
    assert "Traceback" not in done.stderr
    wrong = bench("run", "s.yaml", "--otlp", "localhost:4318")
    assert wrong.returncode == 2
    assert "--otlp: 'localhost:4318' is no URL of a collector" in wrong.stderr
