"""Figures of what the machine did, from made-up readings; what is not known stays unknown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.metrics.hardware import hardware_of, mean_watts
from enginebench.records.cell import CellRecord, CellTraits
from enginebench.records.counters import CounterSeries
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.records.subject import VALUES, Kind, Subject
from enginebench.records.throttle import Throttle
from enginebench.records.window import Window
from enginebench.report.sections.engine_internals import curves
from enginebench.runner import doctor
from enginebench.telemetry.amd import AmdGpu
from enginebench.telemetry.engines import cgroup_of, values_of
from enginebench.telemetry.nvidia import throttle
from enginebench.telemetry.source import compute_processes
from enginebench.validity import Context, Judgement, judge

S = 1_000_000_000
WINDOW = Window(10 * S, 20 * S, "steady", "")


def subject(kind: Kind, name: str = "GPU 0", facts: Mapping[str, Any] | None = None, **values: tuple[float | None, ...]) -> Subject:
    """Readings five seconds apart: 5, 10, 15, ..."""
    assert set(values) <= set(VALUES[kind])
    at = tuple(5 * S * (i + 1) for i in range(max(map(len, values.values()), default=0)))
    return Subject(kind, name, facts or {}, CounterSeries(at, values))


def record(*telemetry: Subject, gpus: int | None = None) -> CellRecord:
    cell = Cell(Deployment("fake", "m", "none", "m"), ClosedLoop(concurrency=1, input_tokens=1, output_tokens=1, requests=1))
    return CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, 0, "ok", telemetry=telemetry, traits=CellTraits(gpus=gpus))


def judged(told: CellRecord) -> Judgement:
    return judge(Context(Samples.collect([]), told, WINDOW))


def reasons(told: CellRecord) -> dict[str, str]:
    return {reason.check.id: reason.detail for reason in judged(told).reasons}


OURS = (1, 1, 1, 1)


# -- power ---------------------------------------------------------------------------------------------------------------


def test_power_is_the_energy_counters_rise_in_the_window() -> None:
    gpu = subject("gpu", ours=OURS, energy_j=(100.0, 1100.0, 4100.0, 8100.0), watts=(1.0, 1.0, 1.0, 1.0))
    assert mean_watts(record(gpu), WINDOW) == (8100 - 1100) / 10
    halfway = Window(7_500_000_000, 12_500_000_000, "steady", "")
    assert mean_watts(record(gpu), halfway) == pytest.approx((500 + 1500) / 5), "in proportion between readings"


def test_without_a_counter_power_is_the_mean_of_its_readings_over_time() -> None:
    gpu = subject("gpu", ours=OURS, watts=(0.0, 100.0, 300.0, 300.0))
    assert mean_watts(record(gpu), WINDOW) == (200 * 5 + 300 * 5) / 10


def test_power_of_several_devices_adds_up_or_is_unknown() -> None:
    a, b = (subject("gpu", f"GPU {i}", ours=OURS, watts=(100.0,) * 4) for i in (0, 1))
    silent = subject("gpu", "GPU 2", ours=OURS, utilisation=(1.0,) * 4)
    assert mean_watts(record(a, b), WINDOW) == 200
    assert mean_watts(record(a, silent), WINDOW) is None


@pytest.mark.parametrize(
    ("energy_j", "why"),
    [((9000.0, 9100.0, 100.0, 200.0), "the driver was loaded anew"), ((1.0, None, None, None), "one reading"), ((), "none")],
)
def test_a_counter_that_cannot_be_used_is_not(energy_j: tuple[float | None, ...], why: str) -> None:
    assert mean_watts(record(subject("gpu", ours=OURS, energy_j=energy_j)), WINDOW) is None, why


def test_readings_over_less_than_half_of_the_window_say_nothing_of_it() -> None:
    gpu = subject("gpu", ours=(1, 1, 1), watts=(100.0, 100.0, 100.0))
    assert mean_watts(record(gpu), Window(10 * S, 20 * S, "steady", "")) == 100
    assert mean_watts(record(gpu), Window(10 * S, 21 * S, "steady", "")) is None


# -- whose device --------------------------------------------------------------------------------------------------------


def test_only_devices_of_the_engines_processes_are_the_cells() -> None:
    ours, idle = subject("gpu", ours=(0, 1, 1, 1), watts=(100.0,) * 4), subject("gpu", "GPU 1", ours=(0,) * 4, watts=(70.0,) * 4)
    assert hardware_of(record(ours, idle, gpus=2), WINDOW).devices == ("GPU 0",)
    assert mean_watts(record(ours, idle, gpus=2), WINDOW) == 100


@pytest.mark.parametrize(("gpus", "utilisation", "known"), [(1, 0.9, True), (2, 0.9, False), (1, 0.0, False), (None, 0.9, False)])
def test_where_processes_cannot_be_found_all_devices_count_or_none(gpus: int | None, utilisation: float, known: bool) -> None:
    gpu = subject("gpu", ours=(0,) * 4, unseen=(3,) * 4, utilisation=(utilisation,) * 4, watts=(100.0,) * 4)
    assert (mean_watts(record(gpu, gpus=gpus), WINDOW) == 100) is known
    assert "gpu_shared" not in reasons(record(gpu, gpus=gpus)), "they may be the engine's"


def test_processes_are_ours_others_or_not_to_be_seen_from_here() -> None:
    assert compute_processes(frozenset({1, 77, 2**22 + 1}), frozenset({77, 78})) == {"ours": 1, "others": 1, "unseen": 1}
    assert compute_processes(None, frozenset({77})) == {"ours": None, "others": None, "unseen": None}


@pytest.mark.parametrize("stranger", ["others", "unseen"])
def test_a_stranger_on_the_engines_device_is_told_and_its_energy_is_not(stranger: str) -> None:
    gpu = subject("gpu", ours=OURS, **{stranger: (0, 0, 1, 0)})
    assert reasons(record(gpu))["gpu_shared"] == "processes that are not the engine's used GPU 0"
    assert "energy_per_token" in judged(record(gpu)).withheld
    assert not reasons(record(subject("gpu", ours=OURS, **{stranger: (1, 0, 0, 0)}))), "before the window"


# -- held back -----------------------------------------------------------------------------------------------------------


def test_the_same_words_for_every_vendors_reasons() -> None:
    assert throttle(0x1 | 0x2 | 0x10 | 0x100) == Throttle(0), "idle, chosen clocks, sync boost, display"
    assert throttle(0x4 | 0x20 | 0x40) == Throttle.POWER_CAP | Throttle.HEAT
    assert throttle(0x8 | 0x80) == Throttle.HARDWARE | Throttle.POWER_BRAKE


def test_heat_is_flagged_and_the_makers_own_power_limit_is_not() -> None:
    hot = subject("gpu", ours=OURS, throttle=(0, Throttle.HEAT, Throttle.HEAT | Throttle.POWER_CAP, 0))
    assert hardware_of(record(hot), WINDOW).throttled == {"power cap": pytest.approx(1 / 3), "heat": pytest.approx(2 / 3)}
    assert reasons(record(hot)) == {"gpu_throttled": "a GPU lowered its clock: heat at 66.7 % of the readings (limit 5 %)"}
    full = subject("gpu", facts={"limit_watts": 700.0, "default_limit_watts": 700.0}, ours=OURS, throttle=(1, 1, 1, 1))
    assert not reasons(record(full))
    lowered = subject("gpu", facts={"limit_watts": 400.0, "default_limit_watts": 700.0}, ours=OURS, throttle=(1, 1, 1, 1))
    assert "power cap at 100 %" in reasons(record(lowered))["gpu_throttled"]


def test_a_container_that_used_up_its_quota_is_flagged() -> None:
    held = subject("container", "engine", periods=(0, 0, 50, 100), throttled_periods=(0, 0, 40, 80), cpu_s=(0.0, 1.0, 2.0, 3.0))
    assert hardware_of(record(held), WINDOW).cores == pytest.approx(0.2)
    assert reasons(record(held)) == {
        "cpu_throttled": "the container of the engine had used up its quota in 80 % of the periods (limit 5 %)"
    }
    free = subject("container", "engine", periods=(0, 0, 50, 100), throttled_periods=(0, 0, 1, 2))
    assert not reasons(record(free))


def test_processor_time_that_others_got_is_flagged() -> None:
    def told(steal: float) -> dict[str, str]:
        return reasons(record(subject("host", "this machine", steal_s=(0.0, 1.0, 1.0, 1 + 40 * steal), capacity_s=(0.0, 20.0, 40.0, 60.0))))

    assert told(0.2)["cpu_stolen"] == "the hypervisor gave 20 % of this machine's CPU time to others (limit 5 %)"
    assert not told(0.04)
    assert not reasons(record(subject("host", "this machine", capacity_s=(0.0, 20.0, 40.0, 60.0)))), "a Mac does not say"


def test_hot_processors_are_flagged() -> None:
    assert "cpu_throttled" in reasons(record(subject("host", "this machine", thermal_throttles=(5, 5, 5, 8))))
    assert not reasons(record(subject("host", "this machine", thermal_throttles=(5, 8, 8, 8)))), "before the window"


def test_a_record_without_telemetry_is_not_blamed_for_it() -> None:
    assert not reasons(record())
    assert hardware_of(record(), WINDOW).watts is None
    assert not curves(record())


# -- over time -----------------------------------------------------------------------------------------------------------


def test_curves_are_of_all_devices_and_of_the_whole_engine() -> None:
    gpus = [subject("gpu", f"GPU {i}", ours=OURS, watts=(100.0, None, 300.0, 50.0), utilisation=(0.0, 1.0, 0.5, 0.5)) for i in (0, 1)]
    engine = [subject("processes", name, cpu_s=(0.0, 5.0, 15.0, None)) for name in ("member a", "engine")]
    found = curves(record(*engine, *gpus))
    assert found["watts"].values["watts"] == (200, None, 600, 100)
    assert found["utilisation"].values["utilisation"] == (0, 1, 0.5, 0.5)
    assert found["cores"].values["cores"] == (2, 4, None)
    assert found["cores"].at_ns == (10 * S, 15 * S, 20 * S)
    assert "memory_gib" not in found


def test_a_record_comes_back_from_disk_as_it_was(tmp_path: Any) -> None:
    cell = record(subject("gpu", facts={"model": "X", "memory_bytes": 3}, ours=OURS, watts=(1.5, None, 2.0, 3.0)))
    run = Run.create(tmp_path / "r", RunRecord("n", "2026-01-01T00:00:00+00:00", {}, "p", (cell.id,), {}, "0"), "")
    run.add_cell(cell)
    assert next(run.cells()).telemetry == cell.telemetry


# -- what tells ----------------------------------------------------------------------------------------------------------


def test_a_containers_figures_under_both_kinds_of_cgroups() -> None:
    cpu = {"cpu_usage": {"total_usage": 2_500_000_000}, "throttling_data": {"periods": 10, "throttled_periods": 4, "throttled_time": 5e8}}
    for cache in ("inactive_file", "total_inactive_file"):
        disk = {"io_service_bytes_recursive": [{"op": "read", "value": 30}, {"op": "write", "value": 5}, {"op": "read", "value": 12}]}
        said = values_of({"cpu_stats": cpu, "memory_stats": {"usage": 1000, "stats": {cache: 300}}, "blkio_stats": disk})
        assert said == {"cpu_s": 2.5, "memory_bytes": 700, "read_bytes": 42, "periods": 10, "throttled_periods": 4, "throttled_s": 0.5}
    unlimited = {**cpu, "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0}}
    assert values_of({"cpu_stats": unlimited, "memory_stats": {}}) == {"cpu_s": 2.5, "memory_bytes": None, "read_bytes": None}
    assert values_of({"cpu_stats": {"cpu_usage": {"total_usage": 0}}}) == {}, "it has ended"
    assert values_of({}) == {}


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_figures_from_its_control_group(tmp_path: Path, version: int) -> None:
    files = {
        1: {
            "cpu/docker/abc/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 500000000\n",
            "cpuacct/docker/abc/cpuacct.usage": "2500000000\n",
            "memory/docker/abc/memory.usage_in_bytes": "1000\n",
            "memory/docker/abc/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
        },
        2: {
            "docker-abc.scope/cpu.stat": "usage_usec 2500000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 500000\n",
            "docker-abc.scope/memory.current": "1000\n",
            "docker-abc.scope/memory.stat": "inactive_file 300\n",
            "docker-abc.scope/io.stat": "259:0 rbytes=30 wbytes=5 rios=1 wios=1\n8:0 rbytes=12 wbytes=0 rios=1 wios=0\n",
        },
    }[version]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    listed = {1: "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n", 2: "0::/docker-abc.scope\n"}[version]
    group = cgroup_of(listed, "abc", tmp_path)
    assert group is not None
    read = {1: None, 2: 42}[version]
    throttled = {"periods": 10, "throttled_periods": 4, "throttled_s": 0.5}
    assert group.read() == {"cpu_s": 2.5, "memory_bytes": 700, "read_bytes": read, **throttled}
    assert cgroup_of(listed, "other", tmp_path) is None
    assert cgroup_of("0::/\n", "abc", tmp_path) is None, "in another container"
    for name in files:
        (tmp_path / name).unlink()
    assert group.read() == {}, "it has ended"


class Smi(SimpleNamespace):
    """amdsmi's functions as its 7.0 has them; this device has no energy counter and no violation status."""

    AmdSmiClkType = SimpleNamespace(GFX=0, MEM=1)
    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT=1)
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT=0)

    def amdsmi_get_power_info(self, _: object) -> dict[str, object]:
        return {"current_socket_power": "N/A", "average_socket_power": 310}

    def amdsmi_get_gpu_activity(self, _: object) -> dict[str, object]:
        return {"gfx_activity": 50}

    def amdsmi_get_gpu_vram_usage(self, _: object) -> dict[str, object]:
        return {"vram_total": 192, "vram_used": 64}

    def amdsmi_get_clock_info(self, _: object, which: int) -> dict[str, object]:
        return {"clk": (2100, "N/A")[which]}

    def amdsmi_get_temp_metric(self, *_: object) -> int:
        return 61

    def amdsmi_get_gpu_process_list(self, _: object) -> list[dict[str, object]]:
        return [{"pid": 5}]


def test_amd_devices_are_read_as_amdsmi_spells_them() -> None:
    gpu = AmdGpu(Smi(), None, "GPU 0", lambda: frozenset({5}))
    assert gpu.read() == {
        "utilisation": 0.5, "memory_bytes": 64 * 2**20, "watts": 310, "energy_j": None, "sm_mhz": 2100, "memory_mhz": None, "celsius": 61,
        "throttle": None, "ours": 1, "others": 0, "unseen": 0,
    }  # fmt: skip
    assert gpu.facts == {"vendor": "AMD", "model": None, "memory_bytes": 192 * 2**20}


@pytest.mark.parametrize(("driver", "level"), [(False, "ok"), (True, "warn")])
def test_the_doctor_says_whether_nvml_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: bool, level: str) -> None:
    def silent() -> tuple[str, int]:
        raise LookupError("libnvidia-ml.so.1 not found")

    monkeypatch.setattr(doctor, "nvml_version", silent)
    monkeypatch.setattr(doctor, "DRIVER", tmp_path if driver else tmp_path / "missing")
    (found,) = (finding for finding in doctor.diagnose() if finding.topic == "NVML")
    assert (found.level, found.text) == (level, "does not answer: libnvidia-ml.so.1 not found")
    assert bool(found.advice) == (level == "warn")
    monkeypatch.setattr(doctor, "nvml_version", lambda: ("580.65", 1))
    assert "NVML" in [finding.topic for finding in doctor.diagnose() if finding.text == "answers for 1 device, driver 580.65"]
