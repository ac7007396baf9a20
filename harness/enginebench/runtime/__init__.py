"""Starts and ends engines: processes, containers, readiness, identity, leftovers. Does not know: loads, metrics, reports."""

from enginebench.runtime.environment import environment, passed_on
from enginebench.runtime.exit_status import LaunchFailed, telling_line
from enginebench.runtime.group import ProcessGroup
from enginebench.runtime.leftovers import leases, sweep, unique_tag
from enginebench.runtime.place import Place, Started, ThisMachine
from enginebench.runtime.process import EngineProcess
from enginebench.runtime.readiness import Proof, free_port, free_ports, http_get, http_get_url, verify_listener, wait_ready

__all__ = [
    "EngineProcess", "LaunchFailed", "Place", "ProcessGroup", "Proof", "Started", "ThisMachine", "environment", "free_port", "free_ports",
    "http_get", "http_get_url", "leases", "passed_on", "sweep", "telling_line", "unique_tag", "verify_listener", "wait_ready",
]  # fmt: skip
