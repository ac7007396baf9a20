"""The catalogue of devices: its figures agree with arithmetic, and its names with what people write and what drivers report."""

from __future__ import annotations

import math
from typing import Any

import pytest
from enginebench.errors import UserError
from enginebench.machine.accelerators import Gpu
from enginebench.physics import devices, read_machine
from enginebench.physics.catalogue import driver_names, read_hardware, self_contained, with_count
from enginebench.physics.detect import BANDWIDTH, hardware_of_run, local_machine, machine_of_run, stated_machine, undetected
from enginebench.physics.device_catalogue import known_devices
from enginebench.physics.device_entry import device_entry
from enginebench.physics.machine import Device
from enginebench.physics.model_fit import fit as fit_model
from enginebench.physics.notation import by_figures
from enginebench.physics.offload_curve import offload
from enginebench.physics.placed import place
from hypothesis import given
from hypothesis import strategies as st

GIB = 2**30
INLINE = "name=box,memory=96gb,bandwidth=1800gb/s"
KNOWN = known_devices()
NAMES = sorted(KNOWN.names)


# -- figures -----------------------------------------------------------------------------------------------------------------------


def test_the_devices_of_today_are_known() -> None:
    assert len(devices()) > 120
    for name in (
        "a100-40gb", "a100-pcie", "h100", "h100-pcie", "h100-nvl", "h200", "h200-nvl", "h20", "h800", "b200", "b300", "gb200", "gb300",
        "gh200", "l4", "l40", "l40s", "a10", "a10g", "t4", "v100", "3060", "3090", "4060ti", "4090", "4090-laptop", "5070ti", "5090",
        "5090-laptop", "rtx-pro-6000", "rtx-pro-6000-server", "rtx-pro-6000-max-q", "a6000", "rtx-6000-ada", "dgx-spark", "strix-halo",
        "m1", "m1-pro", "m1-max", "m1-ultra", "m2", "m2-ultra", "m3", "m3-pro", "m3-max", "m3-ultra", "m4", "m4-pro", "m4-max", "m5",
        "m5-pro", "m5-max", "mi210", "mi250x", "mi300x", "mi325x", "mi350x", "mi355x", "7900xtx", "9070xt", "gaudi2", "gaudi3", "tpu-v5e",
        "tpu-v5p", "tpu-v6e", "tpu-v7", "jetson-orin", "jetson-thor",
    ):  # fmt: skip
        assert read_machine(name).count == 1


@pytest.mark.parametrize("name", [name for name, each in KNOWN.entries.items() if "bus" in each.data])
def test_bandwidth_is_bus_width_times_data_rate(name: str) -> None:
    entry = device_entry(KNOWN.entries[name])
    assert entry.bus is not None
    assert entry.bus.bits * entry.bus.gbps / 8 == pytest.approx(entry.bandwidth_gbs, rel=0.003)


def test_every_device_has_two_sources() -> None:
    sources = {name: each.data["source"] for name, each in KNOWN.entries.items()}
    assert [name for name, names in sources.items() if len(set(names)) < 2] == []
    assert sum("BUS" in names or "AIC" in names for names in sources.values()) > 100


@pytest.mark.parametrize(
    ("family", "sizes"),
    [("m3-ultra", (96, 256, 512)), ("m3-max", (36, 48, 64, 96, 128)), ("m4-max", (36, 48, 64, 128)), ("m2-ultra", (64, 128, 192)),
     ("m1", (8, 16)), ("strix-halo", (32, 64, 96, 128)), ("m5-max", (36, 48, 64, 128))],
)  # fmt: skip
def test_memory_has_the_sizes_that_are_sold(family: str, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        device = read_machine(f"{family}-{size}gb").device
        assert (device.memory, device.remarks) == (size * GIB, ())
    assert "is sold with" in read_machine(f"{family}-100gb").device.remarks[0]
    assert read_machine("m3-max-36gb").device.bandwidth == 307.2e9, "the chip with 30 cores"
    assert read_machine("m3-max-64gb").device.bandwidth == 409.6e9


# -- names -------------------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(NAMES), st.integers(1, 4096), st.sampled_from(["", "+256gb", " + 1.5 GB RAM"]), st.booleans())
def test_a_name_is_no_count_and_a_count_is_no_name(name: str, count: int, host: str, spaced: bool) -> None:
    alone = read_machine(f"{name}{host}")
    assert alone.count == 1
    assert alone.device.name == KNOWN.names[name][0]
    assert (alone.host is not None) == bool(host)
    many = read_machine(f"{count}{' x ' if spaced else 'x'}{name.upper()}{host}")
    assert (many.count, many.device, many.host) == (count, alone.device, alone.host)
    assert read_machine(with_count(f"{name}{host}", count)) == many


@pytest.mark.parametrize("name", NAMES)
def test_no_name_reads_as_a_number_of_another(name: str) -> None:
    assert read_machine(f"4x{name}").device == read_machine(name).device
    first = read_hardware(name)
    assert (first.name, first.count) == (name, 1)


@pytest.mark.parametrize(
    ("text", "count", "name"), [("7900xtx", 1, "rx-7900-xtx-24gb"), ("4x7900xtx", 4, "rx-7900-xtx-24gb"), ("4xh100", 4, "h100-sxm-80gb")]
)
def test_a_7900xtx_is_one_device(text: str, count: int, name: str) -> None:
    machine = read_machine(text)
    assert (machine.count, machine.device.name) == (count, name)


# -- detection ---------------------------------------------------------------------------------------------------------------------


def test_a_driver_name_means_one_device_or_several_that_differ_in_memory() -> None:
    assert len(driver_names()) > 100
    for names in driver_names().values():
        memories = [devices()[name].memory for name in names]
        assert len(set(memories)) == len(names)


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (Gpu("NVIDIA A100-SXM4-40GB", 40 * GIB), "a100-sxm-40gb"),
        (Gpu("NVIDIA A100-PCIE-40GB", 40 * GIB), "a100-pcie-40gb"),
        (Gpu("NVIDIA H100 PCIe", int(79.6 * GIB)), "h100-pcie-80gb"),
        (Gpu("NVIDIA H100 NVL", int(93.6 * GIB)), "h100-nvl-94gb"),
        (Gpu("NVIDIA GeForce RTX 4090 Laptop GPU", 16 * GIB), "rtx-4090-laptop-16gb"),
        (Gpu("NVIDIA GeForce RTX 3080", 10 * GIB), "rtx-3080-10gb"),
        (Gpu("NVIDIA GeForce RTX 3080", 12 * GIB), "rtx-3080-12gb"),
        (Gpu("NVIDIA GeForce RTX 5060 Ti", 8 * GIB), "rtx-5060-ti-8gb"),
        (Gpu("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", int(95.6 * GIB)), "rtx-pro-6000-max-q-96gb"),
        (Gpu("Apple M3 Max", detail={"sppci_cores": "30"}), "m3-max-30-core-96gb"),
        (Gpu("Apple M3 Max", detail={"sppci_cores": "40"}), "m3-max-128gb"),
        (Gpu("Tesla T4", 15 * GIB), "t4-16gb"),
        (Gpu("NVIDIA A100-SXM4-80GB", 10 * GIB), None),
        (Gpu("NVIDIA A100-SXM4-80GB", 80 * GIB, detail={"mig.mode.current": "Enabled"}), None),
        (Gpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GIB), None),
        (Gpu("Voodoo 2", 8 * GIB), None),
        (Gpu("Apple M3 Max"), None),
    ],
)
def test_devices_are_matched_exactly(gpu: Gpu, name: str | None) -> None:
    found = local_machine([gpu, gpu])
    assert (found.device.name if found else None) == name
    reported = {"name": gpu.name, "memory_bytes": gpu.memory_bytes, "detail": dict(gpu.detail)}
    facts: dict[str, Any] = {"gpus": [reported], "memory_bytes": 64e9}
    of_run = machine_of_run(facts, None, 1)
    assert (of_run.device.name if of_run else None) == name
    problem = undetected([gpu])
    assert (problem is None) == (name is not None)
    assert problem is None or "To add it" in (problem.advice or "")


def test_a_mac_has_the_memory_that_it_was_sold_with() -> None:
    facts: dict[str, Any] = {"gpus": [{"name": "Apple M3 Ultra"}], "memory_bytes": 96 * GIB}
    machine = machine_of_run(facts, None, 1)
    assert machine is not None
    assert machine.device.memory == 96 * GIB


def test_what_is_stated_comes_before_what_is_detected() -> None:
    facts: dict[str, Any] = {"gpus": [{"name": "NVIDIA H200", "memory_bytes": 140 * GIB}], "memory_bytes": 1e9, BANDWIDTH: 2e10}
    for stated, name in ((INLINE, "box"), ("4xl40s", "l40s-48gb"), ("cpu", "cpu"), (None, "h200-sxm-141gb"), ("any", "h200-sxm-141gb")):
        machine = machine_of_run(facts, stated, 1)
        assert machine is not None
        assert machine.device.name == name
    assert machine_of_run(facts, "gone-from-the-catalogue", 1) is None, "what is detected is not what was stated"
    assert hardware_of_run(facts, "2xl4", "4xh100") == "2xl4", "the command comes before the scenario"
    assert hardware_of_run(facts, None, "4xh100") == "4xh100"
    assert hardware_of_run(facts, None, None) == "1xh200-sxm-141gb"
    assert hardware_of_run({"gpus": [{"name": "Voodoo 2"}]}, None, None) == "Voodoo 2", "a gap of the catalogue, not of the run"


# -- by its figures ----------------------------------------------------------------------------------------------------------------


def test_a_device_can_be_written_by_its_figures() -> None:
    text = "name=box,memory=96gib,bandwidth=1.8tb/s,bf16=200tflops,fp8=0.4pflops,link=450gb/s,pcie=64gb/s,network=400gbit/s,count=2"
    text += ",usable=75%"
    machine = read_machine(f"{text}+256gb")
    device = machine.device
    assert (machine.name, machine.count) == ("2x box + 256 GB host", 2)
    assert (device.memory, device.usable, device.bandwidth) == (96 * GIB, 72 * GIB, 1.8e12)
    assert device.flops == {"bf16": 2e14, "fp8": 4e14}
    assert (machine.link(2), device.pcie, device.network) == (450e9, 64e9, 50e9)
    plain = read_machine(INLINE)
    assert (plain.device.memory, plain.device.flops, plain.link(8)) == (96e9, {"bf16": math.inf}, math.inf)
    assert read_machine(f"4x {INLINE}").count == 4
    hosted = read_machine(f"{INLINE},host=64gb,host-bandwidth=200gb/s").host
    assert hosted is not None
    assert (hosted.memory, hosted.bandwidth) == (64e9, 200e9)
    assert with_count(f"2x{INLINE}", 8) == f"8x{INLINE}"
    assert read_machine(with_count(f"{text}+256gb", 4)).count == 4
    assert stated_machine(INLINE) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name=box", "has no memory"),
        ("name=box,memory=96gb", "has no bandwidth"),
        ("memory=96,bandwidth=1800gb/s", "memory=96 is no number of"),
        ("name=box,memory=96gb,bandwidth=1800gb", "bandwidth=1800gb is no number of"),
        ("name=box,memori=96gb,bandwidth=1800gb/s", "'memori=96gb' is no figure"),
        ("name=box,memory=96gb,memory=96gb,bandwidth=1gb/s", "memory is written twice"),
        ("2xname=box,memory=96gb,bandwidth=1gb/s,count=2", "written twice"),
        ("name=cpu,memory=96gb,bandwidth=1gb/s", "cannot be called 'cpu'"),
        ("name=box,memory=0gb,bandwidth=1gb/s", "is not possible"),
        ("name=box,memory=9gb,bandwidth=1gb/s,usable=150%", "is not possible"),
        ("name=box,memory=9gb,bandwidth=1gb/s,count=1.5", "is not a whole number"),
        ("name=box,memory=9gb,bandwidth=1gb/s,,", "'' is no figure"),
        ("=", "'=' is no figure"),
        ("any", "states no hardware"),
    ],
)
def test_a_mistake_in_it_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_machine(text)
    assert message in error.value.message
    assert error.value.key == "hardware"
    assert error.value.advice


@given(st.text(max_size=60))
def test_no_text_is_a_traceback(text: str) -> None:
    try:
        read_hardware(text)
    except UserError as error:
        assert error.advice


@pytest.mark.parametrize("device", [each for each in devices().values() if not (each.link and each.link.most)], ids=lambda each: each.name)
def test_a_device_survives_its_notation(device: Device) -> None:
    again = read_machine(by_figures(device)).device
    assert again.memory == pytest.approx(device.memory)
    assert again.bandwidth == pytest.approx(device.bandwidth)
    assert again.flops == pytest.approx(device.flops)
    assert (again.usable_share, again.node) == (device.usable_share, device.node)
    assert again.remarks == ()


def test_a_stated_bandwidth_is_compared_with_the_catalogue() -> None:
    assert read_machine("name=h100,memory=80gb,bandwidth=5000gb/s").device.remarks == (
        "h100 is stated with 5,000 GB/s; the catalogue has 3,350 GB/s",
    )
    assert read_machine("name=h100,memory=80gb,bandwidth=3.35tb/s").device.remarks == ()
    assert self_contained("4xh100") == "4xh100"


# -- fit and offload ---------------------------------------------------------------------------------------------------------------

SMALL = ["rtx-4090", "rtx-3080", "3060", "rtx-5090", "l4", "rtx-4090-laptop", "7900xtx", "name=box,memory=20gb,bandwidth=500gb/s"]


@pytest.mark.parametrize("hardware", SMALL)
@pytest.mark.parametrize(
    ("model", "precision"),
    [("llama4-scout", "q4_k_m"), ("gpt-oss-120b", None), ("gpt-oss-20b", "mxfp4"), ("mixtral-8x7b", "q4_0"), ("qwen3-30b-a3b", "q8_0"),
     ("llama-3.1-70b", "q4_k_m"), ("deepseek-r1", "ud-iq1_s")],
)  # fmt: skip
def test_fit_and_offload_agree(model: str, precision: str | None, hardware: str) -> None:
    machine, context = f"{hardware}+512gb", 4096 if len(hardware) % 2 else 32768
    found = fit_model(place(model, machine, precision=precision), context=context)
    try:
        curve = offload(model, machine, precision=precision, context=context)
    except UserError:
        assert not found.with_host, "llama.cpp lacks the precision"
        return
    if found.fits:
        assert curve.best is not None
        assert curve.best.layers == 0, "the working memory of llama.cpp is smaller"
        return
    layers = [each.offload.expert_layers or each.offload.blocks for each in found.with_host if each.offload.kept is None]
    assert (curve.best.layers if curve.best else None) == (layers[0] if layers else None)


def test_scout_on_a_4090_has_35_layers_in_both() -> None:
    arguments = ("llama4-scout", "rtx4090+128gb")
    found = fit_model(place(*arguments, precision="q4_k_m"), context=4096)
    assert found.with_host[0].offload.expert_layers == 35
    best = offload(*arguments, precision="q4_k_m", context=4096).best
    assert best is not None
    assert best.layers == 35
