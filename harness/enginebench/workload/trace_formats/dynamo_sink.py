"""Request traces of NVIDIA Dynamo in the envelope that its sinks may put around each record: {"timestamp": ..., "event": record}."""

from dataclasses import replace

from enginebench.workload.trace_formats.dynamo import FORMAT as DYNAMO

FORMAT = replace(DYNAMO, name="dynamo-sink", title="Dynamo request traces, in envelopes", has=("event",))
