"""The public Python API: its names and signatures, that it is cheap to import, and that the command line needs nothing else."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import enginebench
import pytest
from enginebench import api

NAMES = [
    "Analysis", "Audit", "Calibration", "CannotRun", "Ceilings", "CellEnded", "CellProgress", "CellResult", "CellStarted",
    "CellsAdded", "Check", "Cleanup", "Comparison", "Conclusion", "DescribedWorkload", "Diagnosis", "Differs", "Discrepancy",
    "Engine", "EngineReady", "Event", "Expectations", "Expected", "Exported", "Form", "History", "ImageList", "LaunchCommands",
    "LaunchEnded", "LaunchStarted", "LaunchStep", "ListedImage", "ListedScenario", "ListedWorkload", "ListeningClient",
    "Missing", "ModelFit", "Node", "Note", "Offload", "OffloadCurve", "OnEvent", "Packed", "PlacedModel", "Placing", "Plan",
    "PlanTime", "Preflight", "Prices", "Rerun", "Routing", "RoutingSummary", "Run", "RunIndex", "RunOpened", "SideBySide",
    "Site", "StoredRow", "StoredRun", "Tunables", "Tuned", "UserError", "Verification", "Viewing", "all_checks", "audit_claims",
    "audit_scenarios", "audit_to_html", "build_images", "build_site", "built_in_scenarios", "calibrate", "ceiling", "clean",
    "cluster_nodes", "compare", "count_routing", "describe_workload", "doctor", "expectations", "export", "export_formats",
    "fit", "forget_engine", "history", "import_file", "index_to_dict", "index_to_text", "install_engine", "install_on",
    "latest_run", "launch_commands", "list_engines", "list_images", "list_scenarios", "listen_client", "offload", "open_run",
    "pack", "pin_images", "place", "placing", "plan", "plan_time", "preflight", "price_list", "pull_images", "rerun",
    "routing_summary", "run", "run_index", "runs", "side_by_side", "submission", "tunable", "tune", "tuned_scenario",
    "use_engine", "verify", "view", "workloads",
]  # fmt: skip

SIGNATURES = {
    "plan": "(scenario: str | Path, *, only: Sequence[str] = (), repeats: Repeats | None = None, "
    "hardware: str | None = None, runtime: Runtime | None = None, adapters: Sequence[str | Path] = (), "
    "expectations: Expectations | None = None, elsewhere: bool = False) -> Plan",
    "open_run": "(path: str | Path, *, facts: Sequence[str] = ()) -> Run",
    "latest_run": "(folder: str | Path = 'results') -> Run",
    "runs": "(folder: str | Path = 'results') -> list[Run]",
    "side_by_side": "(runs: Sequence[Run | str | Path], *, prices: Prices | None = None, facts: Sequence[str] = ()) -> SideBySide",
    "run_index": "(folder: str | Path | None = None, *, index: str | None = None, on_run: OnRun = <function>) -> RunIndex",
    "compare": "(base: Run | str | Path, candidate: Run | str | Path, *, fail_if: Sequence[str] = (), limit: float | None = None, "
    "prices: Prices | None = None, facts: Sequence[str] = (), anyway: bool = False) -> Comparison",
    "history": "(folder: str | Path | Sequence[Run] | None = 'results', *, metric: str | Sequence[str] = (), "
    "equal_within: str | float | None = None, index: str | None = None, on_run: OnRun = <function>) -> History",
    "tuned_scenario": "(run: Run) -> str",
    "tune": "(plan: Plan, *, budget_s: float = 1800.0, goal: str | None = None, seed: int = 0, lossy: bool = False, "
    "results: str | Path = 'results', fresh: bool = False, wait_quiet_s: float = 0.0, share_machine: bool = False, "
    "on_event: OnEvent = <function>) -> Run",
    "place": "(model: str, hardware: str, *, precision: str | None = None, kv: str = 'f16', tp: int | None = None, pp: int = 1, "
    "dp_replicas: int = 1, attention_dp: int = 1, ep: int | None = None, redundant_experts: int = 0, offload: Offload = <NOTHING>, "
    "host_gb_s: float | None = None, engine: str | None = None) -> PlacedModel",
    "fit": "(model: PlacedModel, *, context: int = 4096, concurrency: int = 1, reserve_gib: float | None = None, "
    "chunk: int | None = None, expectations: Expectations | None = None) -> ModelFit",
    "ceiling": "(model: PlacedModel, *, contexts: Sequence[int] = (2048,), batches: Sequence[int] = (), routing: str = 'even', "
    "measured: bool = False, bandwidth_gb_s: float | None = None, speculate: int | None = None, acceptance: float = 0.7, "
    "draft: str | None = None, expectations: Expectations | None = None) -> Ceilings",
    "plan_time": "(plan: Plan) -> PlanTime",
    "expectations": "(calibrate: Sequence[str | Path] = ()) -> Expectations",
    "offload": "(model: str, hardware: str, *, precision: str | None = None, kv: str = 'f16', host_gb_s: float | None = None, "
    "context: int = 8192, concurrency: int = 1, routing: str = 'even', reserve_gib: float = 1.0, "
    "expectations: Expectations | None = None) -> OffloadCurve",
    "count_routing": "(source: str | Path, *, engine: str | None = None, precision: str = 'bf16', "
    "inputs: Sequence[str] = ('text', 'code', 'random'), requests: int = 16, input_tokens: int = 128, output_tokens: int = 64, "
    "model: str | None = None, out: str | Path | None = None, adapters: Sequence[str | Path] = (), "
    "on_step: Step = <function>) -> Iterator[Routing]",
    "routing_summary": "(routing: Routing, *, ranks: Sequence[int] = (2, 4, 8), batches: Sequence[int] = (1, 4, 16)) -> RoutingSummary",
    "audit_claims": "(target: str | Path, *, hardware: str | None = None, routing: str = 'even', prices: Prices | None = None, "
    "facts: Sequence[str] = ()) -> Audit",
    "price_list": "(file: Path | str | None = None, given: Sequence[str] = ()) -> Prices",
    "list_engines": "(adapters: Sequence[str | Path] = ()) -> list[Engine]",
    "install_engine": "(name: str, *, adapters: Sequence[str | Path] = (), on_step: Callable[[str], None] = <function>) -> Engine",
    "workloads": "() -> list[ListedWorkload]",
    "describe_workload": "(name: str, *, time_unit: str | None = None) -> DescribedWorkload",
    "use_engine": "(name: str, python: str | Path, *, adapters: Sequence[str | Path] = ()) -> Engine",
    "forget_engine": "(name: str, *, adapters: Sequence[str | Path] = ()) -> Engine",
    "doctor": "(adapters: Sequence[str | Path] = ()) -> list[Diagnosis]",
    "clean": "() -> Cleanup",
    "import_file": "(path: str | Path | Sequence[str | Path], *, results: str | Path = 'results', facts: Sequence[str] = ()) -> Run",
    "listen_client": "(where: str = '127.0.0.1:0', *, adapters: Sequence[str | Path] = (), say: Callable[[str], None] = <function>) "
    "-> ListeningClient",
    "view": "(path: str | Path = 'results', *, port: int = 0, index: str | None = None) -> Viewing",
    "build_site": "(folder: str | Path, output: str | Path, *, index: str | None = None, "
    "on_run: Callable[[str], None] = <function>) -> Site",
    "run": "(plan: Plan, *, results: str | Path = 'results', fresh: bool = False, retry_failed: bool = False, client_processes: int = 1, "
    "clients: Sequence[str] = (), wait_quiet_s: float = 0.0, share_machine: bool = False, otlp: str | None = None, on: str | None = None, "
    "settings: Mapping[str, str] | None = None, on_event: OnEvent = <function>) -> Run",
}


def test_the_names_are_pinned() -> None:
    assert sorted(enginebench.__all__) == NAMES  # type: ignore[attr-defined]  # __getattr__ makes it
    assert set(NAMES) <= set(dir(enginebench))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name: str) -> None:
    found = getattr(enginebench, name)
    if inspect.isfunction(found) or inspect.isclass(found):
        assert inspect.getdoc(found), "no docstring"
        assert "Any" not in str(inspect.signature(found)), "the public API is typed"


@pytest.mark.parametrize("name", NAMES)
def test_the_types_of_every_name_can_be_evaluated(name: str) -> None:
    """As notebooks, documentation tools and validators do."""
    found = getattr(enginebench, name)
    if inspect.isfunction(found) or inspect.isclass(found):
        assert typing.get_type_hints(found) is not None
        assert not inspect.isclass(found) or typing.get_type_hints(found.__init__) is not None
    assert typing.get_type_hints(enginebench.run)["return"] is enginebench.Run


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_pinned(name: str) -> None:
    signature = inspect.signature(getattr(enginebench, name))
    shown = [
        parameter.replace(default=_Shown(parameter.default)) if parameter.default is not inspect.Parameter.empty else parameter
        for parameter in signature.parameters.values()
    ]
    assert _unquoted(str(signature.replace(parameters=shown))) == _unquoted(SIGNATURES[name])


class _Shown:
    """A default as the pinned signatures write it."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        if callable(self._value):
            return "<function>"
        return "<NOTHING>" if type(self._value).__name__ == "Offload" else repr(self._value)


def _unquoted(signature: str) -> str:
    return signature.replace("'", "").replace("eb.", "")


def test_a_name_stands_once_and_its_module_defines_it() -> None:
    """Type checkers and `__getattr__` read the same lines."""
    stub = (Path(api.__file__).parent / "__init__.pyi").read_text()
    lines = [line for line in stub.splitlines() if line.startswith("from ")]
    assert all(re.fullmatch(r"from (enginebench\.[a-z_.]+) import (\w+) as \2", line) for line in lines)
    assert len(lines) == len(NAMES)
    for name in NAMES:
        found, module = getattr(enginebench, name), enginebench._modules()[name]  # type: ignore[attr-defined]  # not in the stub
        if inspect.isfunction(found) or inspect.isclass(found):
            assert module == found.__module__, name


def test_no_name_is_that_of_a_package() -> None:
    """Importing `enginebench.audit.page` sets `enginebench.audit`; a function of that name would be lost."""
    packages = {file.parent.name for file in Path(api.__file__).parent.glob("*/__init__.py")}
    assert not packages & set(NAMES)
    assert {"audit", "runner"} <= packages


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, enginebench; print(*(name for name in sys.modules if name.startswith('enginebench') or name in ('click', 'numpy')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["enginebench"]


def test_help_imports_no_engine_and_no_physics() -> None:
    code = "import sys, enginebench.cli; print(*sys.modules)"
    modules = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    heavy = {"numpy", "pandas", "pydantic", "enginebench.runner", "enginebench.physics", "enginebench.analysis", "enginebench.records"}
    assert not heavy & modules


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = enginebench.nothing  # type: ignore[attr-defined]
