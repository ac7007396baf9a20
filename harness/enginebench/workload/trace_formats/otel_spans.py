"""OpenTelemetry spans as the SDKs' console exporter writes them: one JSON object per span, or a list of them."""

from dataclasses import replace

from enginebench.workload.trace_formats.otel import FORMAT as OTEL

FORMAT = replace(OTEL, name="otel-spans", title="OpenTelemetry spans, one by one", has=("attributes", "start_time", "end_time"))
