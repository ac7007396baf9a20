"""Facts about the machine, from cgroup trees, a stand-in for NVML and recorded tool outputs; and what the doctor makes of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from enginebench.adapter import Install
from enginebench.domain import plain
from enginebench.engines.installed import Engine
from enginebench.machine import host, nvml
from enginebench.machine.accelerators import Gpu, ask, nvidia_gpus, parse_rocm_smi, parse_system_profiler
from enginebench.runner import doctor
from enginebench.runner.doctor import Diagnosis
from enginebench.runtime import LaunchFailed
from enginebench.runtime.container.leftovers import Leftover


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(host, "SELF_CGROUP", tmp_path / "self")
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_facts_are_quick_complete_and_json() -> None:
    began = time.perf_counter()
    facts = host.facts()
    assert time.perf_counter() - began < 10.0  # 0.03 s without accelerators; their tools may take seconds
    assert json.loads(json.dumps(plain(facts)))["logical_cores"] == psutil.cpu_count()
    assert facts.packages["psutil"] == psutil.__version__
    assert facts.clock_step_ns > 0


def test_cgroup_v2_limits_are_inherited_and_the_tightest_rules(cgroups: Path) -> None:
    files = {
        "self": "0::/pod/box",
        "cgroup/pod/cpu.max": "150000 100000",
        "cgroup/pod/box/cpu.max": "max 100000",
        "cgroup/pod/memory.max": "8589934592",
        "cgroup/pod/box/memory.max": "4294967296",
    }
    write(cgroups, files)
    assert host.cpu_quota() == 1.5
    assert host.memory_limit() == 4 * 2**30


def test_cgroup_v1_in_a_container_that_cannot_see_its_own_path(cgroups: Path) -> None:
    files = {
        "self": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/",
        "cgroup/cpu/cpu.cfs_quota_us": "200000",
        "cgroup/cpu/cpu.cfs_period_us": "100000",
        "cgroup/memory/memory.limit_in_bytes": "1073741824",
    }
    write(cgroups, files)
    assert host.cpu_quota() == 2.0
    assert host.memory_limit() == 2**30


def test_no_limit_is_none(cgroups: Path) -> None:
    files = {
        "self": "4:memory:/\n3:cpu:/",
        "cgroup/cpu/cpu.cfs_quota_us": "-1",
        "cgroup/cpu/cpu.cfs_period_us": "100000",
        "cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    write(cgroups, files)
    assert host.cpu_quota() is None
    assert host.memory_limit() is None


def test_a_machine_without_cgroups(cgroups: Path) -> None:
    assert host.cpu_quota() is None
    assert host.memory_limit() is None


def test_governors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CPUFREQ", tmp_path)
    assert host.governor() is None
    write(tmp_path, {"cpu0/cpufreq/scaling_governor": "performance", "cpu1/cpufreq/scaling_governor": "powersave"})
    assert host.governor() == "performance, powersave"


# -- accelerators ----------------------------------------------------------------------------------------------------------------


class NvmlError(Exception):
    """Raised by a question that a device or driver does not support."""


class Nvml:
    """As much of pynvml as is asked: an H100, a GB10 without its own memory or a power limit, and a device that does not answer."""

    NVMLError = NvmlError
    NVML_CLOCK_SM = 1
    open = 0

    def nvmlShutdown(self) -> None:  # noqa: N802  # the library's name
        self.open -= 1

    def __getattr__(self, name: str) -> Callable[..., object]:
        answers: dict[str, object] = {
            "nvmlSystemGetDriverVersion": b"580.65.06",
            "nvmlDeviceGetCount": 3,
            "nvmlDeviceGetName": ["NVIDIA H100 80GB HBM3", b"NVIDIA GB10"],
            "nvmlDeviceGetMemoryInfo": [SimpleNamespace(total=81559 * 2**20)],
            "nvmlDeviceGetCudaComputeCapability": [(9, 0), (12, 1)],
            "nvmlDeviceGetPowerManagementLimit": [700_000],
            "nvmlDeviceGetMigMode": [(0, 0)],
            "nvmlDeviceGetHandleByIndex": [0, 1],
        }

        def question(device: int | None = None, *_: object) -> object:
            found = answers.get(name, [])
            if not isinstance(found, list):
                return found
            if device is None or device >= len(found):
                raise NvmlError("Not Supported")
            return found[device]

        return question


def test_nvidia_devices_are_read_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Nvml()

    def connect() -> Nvml:
        library.open += 1
        return library

    monkeypatch.setattr(nvml, "connect", connect)
    h100, gb10 = nvidia_gpus()
    assert (h100.name, h100.memory_bytes, h100.driver) == ("NVIDIA H100 80GB HBM3", 81559 * 2**20, "580.65.06")
    assert h100.detail == {"compute_cap": "9.0", "power.limit": "700.00", "mig.mode.current": "Disabled"}
    assert (gb10.name, gb10.memory_bytes, gb10.detail) == ("NVIDIA GB10", None, {"compute_cap": "12.1"})
    assert library.open == 0


def test_without_nvml_there_is_no_nvidia_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "no-such-library.so")
    assert nvidia_gpus() == ()
    with pytest.raises(LookupError, match="not found"):
        nvml.connect()


def test_rocm_smi() -> None:
    card = {"Card Series": "AMD Instinct MI300X", "VRAM Total Memory (B)": "205", "GFX Version": "gfx942"}
    text = json.dumps({"card0": card, "system": {"Driver version": "6.8.5"}})
    assert parse_rocm_smi(text) == (Gpu("AMD Instinct MI300X", 205, "6.8.5", {"GFX Version": "gfx942"}),)


def test_system_profiler() -> None:
    text = json.dumps({"SPDisplaysDataType": [{"sppci_model": "Apple M3 Max", "sppci_cores": "40"}]})
    assert parse_system_profiler(text) == (Gpu("Apple M3 Max", detail={"sppci_cores": "40"}),)


@pytest.mark.parametrize("text", ["", "no devices", "[]", "{}", '{"card0": 1, "SPDisplaysDataType": 1}'])
def test_tools_that_say_nonsense(text: str) -> None:
    assert parse_system_profiler(text) == ()
    assert all(gpu.memory_bytes is None for gpu in parse_rocm_smi(text))


def test_ask_never_raises_and_never_hangs() -> None:
    assert ask(["echo", "hello"], 5.0) == "hello"
    assert ask(["no-such-tool"], 5.0) is None
    assert ask(["false"], 5.0) is None
    began = time.perf_counter()
    assert ask(["sleep", "30"], 0.1) is None
    assert time.perf_counter() - began < 5.0


# -- doctor ----------------------------------------------------------------------------------------------------------------------


class Daemon:
    """As much of a Docker client as a look at the machine needs."""

    def version(self) -> dict[str, str]:
        return {"Version": "28.0.1", "ApiVersion": "1.48"}

    def close(self) -> None:
        pass


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A healthy machine."""
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path))
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(tmp_path / "leases"))
    monkeypatch.setattr(doctor, "LITTLE_DISK", 0)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 0)
    monkeypatch.setattr("enginebench.runtime.container.client.connect", lambda *_: Daemon())
    monkeypatch.setattr("enginebench.runtime.container.leftovers.find", lambda *_: [])
    monkeypatch.setattr(
        doctor, "gpus", lambda: (Gpu("NVIDIA H100 80GB HBM3", 80 * 2**30, "580"), Gpu("NVIDIA H100 80GB HBM3", 80 * 2**30, "580"))
    )
    for name, value in {"usable_cores": 16, "cpu_quota": None, "governor": "performance"}.items():
        monkeypatch.setattr(host, name, lambda value=value: value)
    monkeypatch.setattr(doctor, "others_since", lambda _: 0.02)
    return monkeypatch


def finding(topic: str) -> Diagnosis:
    return next(found for found in doctor.diagnose() if found.topic == topic)


def test_a_healthy_machine_needs_no_advice(patient: pytest.MonkeyPatch) -> None:
    findings = doctor.diagnose()
    assert [(found.topic, found.level, found.advice) for found in findings if found.level != "ok" or found.advice] == []
    assert finding("GPUs").text == "2 x NVIDIA H100 80GB HBM3 80 GiB, driver 580"
    assert finding("Docker").text == "daemon 28.0.1, API 1.48"


@pytest.mark.parametrize(
    ("topic", "fact", "value", "words"),
    [
        ("cores", "usable_cores", 2, "compete"),
        ("cores", "cpu_quota", 1.5, "quota"),
        ("quiet", "governor", "powersave", "cpupower"),
    ],
)
def test_what_spoils_numbers_is_a_warning_with_advice(
    patient: pytest.MonkeyPatch, topic: str, fact: str, value: object, words: str
) -> None:
    patient.setattr(host, fact, lambda: value)
    found = finding(topic)
    assert found.level == "warn"
    assert words in found.advice


def test_a_machine_is_busy_at_the_share_from_which_cells_are_suspect(patient: pytest.MonkeyPatch) -> None:
    assert finding("quiet").text == "other work uses 2 % of the CPUs, CPU governor performance"
    patient.setattr(doctor, "others_since", lambda _: 0.12)
    found = finding("quiet")
    assert (found.level, found.text, found.advice) == (
        "warn", "other work uses 12 % of the CPUs, CPU governor performance", "other work is running; wait for it or end it",
    )  # fmt: skip


def test_no_docker_daemon(patient: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> Daemon:
        raise LaunchFailed("no response from a Docker daemon at unix:///var/run/docker.sock")

    patient.setattr("enginebench.runtime.container.client.connect", nobody)
    assert (finding("Docker").level, finding("Docker").text) == ("warn", "no response from a Docker daemon at unix:///var/run/docker.sock")


def test_containers_that_runs_left_behind_are_named(patient: pytest.MonkeyPatch) -> None:
    left = [Leftover("container", "a1", "enginebench-x", "monday", "x", live, "exited") for live in (False, True)]
    patient.setattr("enginebench.runtime.container.leftovers.find", lambda *_: left)
    assert finding("containers").text == "left by runs that have ended: container enginebench-x (exited) of run monday"
    patient.setattr("enginebench.runtime.container.leftovers.find", lambda *_: left[1:])
    assert finding("containers").text == "1 containers and networks of other runs are up"


def test_engines() -> None:
    here = Install("wheel", "1.2", python=Path("/venv/bin/python"))
    present, absent = doctor.diagnose([Engine("llamacpp", "llama.cpp", installs=(here,)), Engine("vllm", "vLLM")])[-2:]
    assert (present.level, present.text) == ("ok", "llama.cpp 1.2 (wheel) in /venv/bin/python")
    assert (absent.level, absent.advice) == ("no", "bench engines install vllm")
