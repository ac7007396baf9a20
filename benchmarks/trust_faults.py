"""The faults that `benchmarks/trust.py` plants: what each is, which checks name its cause, and how it gets into a run.

A fault that the server has is a set of options of faulty_server.py. A fault of the machine, the client or the files is planted around or
between runs. Strengths go from weak to full: only the last has to be found every time.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil
from trust_scene import (
    ATTACHED,
    CLOSED,
    FAKE,
    HERE,
    LONG,
    MEDIUM,
    OPEN,
    SHORT,
    Beside,
    Scene,
    Seen,
    cells,
    faulty,
    measured,
    running_server,
    scenario,
)  # fmt: skip

NVML = HERE.parent / "tests/engine/nvml/standin.c"


@dataclass(frozen=True)
class Fault:
    name: str
    causes: tuple[str, ...]
    """Ids of the checks that name this cause, or words of the sentence with which it is refused or fails."""
    strengths: tuple[str, ...]
    """From weak to full, in words."""
    run: Callable[[Scene, int], list[Seen]]
    """(scene, index of the strength) -> what each of its `repeats` cells says."""


def server(name: str, causes: Sequence[str], strengths: Mapping[str, Mapping[str, object]], load: str = CLOSED) -> Fault:
    """A fault that the server has. strengths: in words -> options."""

    def run(scene: Scene, strength: int) -> list[Seen]:
        given = list(strengths.values())[strength]
        return measured(scene, scenario(faulty(**given), load, scene.repeats))  # type: ignore[arg-type]

    return Fault(name, tuple(causes), tuple(strengths), run)


def attached(name: str, causes: Sequence[str], strengths: Mapping[str, Mapping[str, object]]) -> Fault:
    """A fault of a server that runs already."""

    def run(scene: Scene, strength: int) -> list[Seen]:
        with running_server(list(strengths.values())[strength]) as port:
            return measured(scene, scenario(ATTACHED.replace("PORT", str(port)), CLOSED, scene.repeats))

    return Fault(name, tuple(causes), tuple(strengths), run)


def loads(name: str, causes: Sequence[str], strengths: Mapping[str, str], **faults: object) -> Fault:
    """A load that a sound server cannot be measured with."""

    def run(scene: Scene, strength: int) -> list[Seen]:
        return measured(scene, scenario(faulty(**faults), list(strengths.values())[strength], scene.repeats))  # type: ignore[arg-type]

    return Fault(name, tuple(causes), tuple(strengths), run)


def beside(
    name: str,
    causes: Sequence[str],
    strengths: Mapping[str, Beside],
    load: str = MEDIUM,
    arguments: Sequence[str] = (),
) -> Fault:
    """Something that goes on beside a sound server and a sound load."""

    def run(scene: Scene, strength: int) -> list[Seen]:
        return measured(scene, scenario(faulty(), load, scene.repeats), *arguments, during=list(strengths.values())[strength])

    return Fault(name, tuple(causes), tuple(strengths), run)


# -- what goes on beside a run -------------------------------------------------------------------------------------------


BURN = """
import sys, time
busy, idle = map(float, sys.argv[1:])
while True:
    end = time.monotonic() + busy
    while time.monotonic() < end: pass
    time.sleep(idle)
"""
PAUSE = """
import os, signal, sys, time
pid, stopped, running = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
try:
    while True:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(stopped)
        os.kill(pid, signal.SIGCONT)
        time.sleep(running)
except ProcessLookupError:
    pass
"""


def burning(cores: float) -> Beside:
    """Other work on this machine: as much processor time as so many cores have."""

    @contextlib.contextmanager
    def during(_: psutil.Process) -> Iterator[None]:
        count = max(1, round(cores))
        argv = [sys.executable, "-c", BURN, str(0.02 * cores / count), str(0.02 * (1 - cores / count))]
        burners = [subprocess.Popen(argv) for _ in range(count)]
        try:
            yield
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()

    return during


def pausing(share: float, period_s: float) -> Beside:
    """The load generator is stopped for this share of its time, as on a machine that swaps."""

    @contextlib.contextmanager
    def during(client: psutil.Process) -> Iterator[None]:
        argv = [sys.executable, "-c", PAUSE, str(client.pid), str(share * period_s), str((1 - share) * period_s)]
        pauser = subprocess.Popen(argv)
        try:
            yield
        finally:
            pauser.kill()
            pauser.wait()
            with contextlib.suppress(psutil.Error):
                client.resume()

    return during


def stopped(period_s: float) -> dict[str, Beside]:
    return {f"client stopped {p} % of the time": pausing(p / 100, period_s) for p in (5, 20, 80)}


# -- faults of several steps ---------------------------------------------------------------------------------------------


def second_benchmark(scene: Scene, strength: int) -> list[Seen]:
    """Another `bench run`, which keeps the machine busy while ours goes on at the user's own risk."""
    streams = (1, 16, 128)[strength]
    other = Scene(scene.folder / "other", 1)
    other.folder.mkdir(exist_ok=True)
    load = f"{{concurrency: {streams}, input_tokens: 64, output_tokens: 32, requests: 0, duration_s: {10 * scene.repeats + 5}}}"
    running = other.start(scenario(faulty(), load), "--fresh", "--share-machine")
    try:
        time.sleep(2.5)
        return measured(scene, scenario(faulty(), MEDIUM, scene.repeats), "--share-machine")
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)


def second_benchmark_refused(scene: Scene, _: int) -> list[Seen]:
    """Another `bench run` starts while one is at work."""
    other = Scene(scene.folder / "other", 1)
    other.folder.mkdir(exist_ok=True)
    load = f"{{concurrency: 1, input_tokens: 64, output_tokens: 32, requests: 0, duration_s: {4 * scene.repeats + 5}}}"
    running = other.start(scenario(faulty(), load), "--fresh")
    try:
        time.sleep(2.5)
        return [seen for _ in range(scene.repeats) for seen in measured(Scene(scene.folder, 1), scenario(faulty(), CLOSED))]
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)


def dummy_routing(scene: Scene, _: int) -> list[Seen]:
    """A Mixture of Experts with random weights, in llama.cpp."""
    weights = "{layers: 2, hidden: 128, heads: 2, kv_heads: 1, head_dim: 64, experts: 8, top_k: 2, expert_intermediate: 128, seed: 0}"
    models = f"models:\n  moe: {{random_weights: {weights}}}\n"
    return measured(scene, models + scenario("{engine: llamacpp, model: moe, precision: f16}", CLOSED, scene.repeats))


def another_starter(scene: Scene, _: int) -> list[Seen]:
    """The process that was launched has a daemon start the server, which therefore is no descendant of the harness."""
    address, servers = scene.folder / "starter", list[subprocess.Popen[bytes]]()

    def start() -> None:
        with contextlib.suppress(OSError):  # the socket is closed when the run has ended
            while True:
                connection, _ = listening.accept()
                with connection, connection.makefile() as asked:
                    servers.append(subprocess.Popen(json.loads(asked.readline()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                    asked.readline()  # until the launched process is ended
                    servers[-1].kill()
                    servers[-1].wait()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        threading.Thread(target=start, daemon=True).start()
        return measured(scene, scenario(faulty(starter=str(address)), CLOSED, scene.repeats))


def killed_worker(scene: Scene, strength: int) -> list[Seen]:
    """A process that sends the load is killed in the middle of a load."""
    found = []
    for _ in range(scene.repeats):
        process = scene.start(scenario(faulty(), LONG), "--fresh", "--client-processes", "2")
        deadline = time.monotonic() + 60
        victims: list[psutil.Process] = []
        while time.monotonic() < deadline and process.poll() is None and not victims:
            time.sleep(0.2)
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(process.pid).children(recursive=True)
                workers = [child for child in children if "enginebench.loadgen.workers" in child.cmdline()]
                victims = [worker for worker in workers if time.time() - worker.create_time() > 1.5]  # older than any warm-up's
        for victim in victims[: strength + 1]:
            with contextlib.suppress(psutil.Error):
                victim.kill()
        process.communicate(timeout=120)
        found += cells(scene.results())
    return found


DATASET = [json.dumps({"prompt": f"question {i}: " + "why does the sea taste of salt " * 4}) + "\n" for i in range(40)]


def swapped_input(scene: Scene, strength: int) -> list[Seen]:
    """The data set changes between an interrupted run and the one that resumes it."""
    data = scene.folder / "data.jsonl"
    text = scenario(faulty(), "{concurrency: 4, prompts: 'jsonl:data.jsonl#prompt', requests: 40, api: chat, output_tokens: [8, 16]}")
    found = []
    for _ in range(scene.repeats):
        data.write_text("".join(DATASET))
        shutil.rmtree(scene.folder / "results", ignore_errors=True)
        scene.run(text, "--fresh")
        next((scene.results() / "cells").glob("*.json")).unlink()
        swapped = ([*DATASET[:-1], DATASET[-1].replace("salt", "sugar")], DATASET[:20], [line.replace("sea", "lake") for line in DATASET])
        data.write_text("".join(swapped[strength]))
        code, printed = scene.run(text)
        found.append(Seen(frozenset({f"refused: {printed}" if code == 2 else "went on"}), "refused" if code == 2 else "valid"))
    return found


def flipped(pattern: str) -> Callable[[Scene, int], list[Seen]]:
    """Bytes of a stored file are inverted: 1, 16 or half of them."""

    def run(scene: Scene, strength: int) -> list[Seen]:
        found, dice = [], random.Random(strength)  # noqa: S311  (no secret)
        for _ in range(scene.repeats):
            scene.run(scenario(faulty(), CLOSED), "--fresh")
            folder = scene.results()
            victim = dice.choice(sorted(folder.glob(pattern)))
            data = bytearray(victim.read_bytes())
            for _ in range((1, 16, len(data) // 2)[strength]):
                data[dice.randrange(len(data))] ^= 0xFF
            victim.write_bytes(data)
            try:
                found += cells(folder)
            except Exception as error:  # noqa: BLE001  # a sentence and a traceback are told apart by the counting
                found.append(Seen(frozenset({f"refused: {type(error).__name__} {error}"}), "refused"))
            if not found:
                found.append(Seen(frozenset({"lost"}), "lost"))
        return found

    return run


STEP = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static void step(struct timespec *t) {
    if (access(getenv("STEP_FILE"), F_OK)) return;
    long long ns = t->tv_nsec + (long long)(atof(getenv("STEP_S")) * 1e9);
    t->tv_sec += ns / 1000000000; t->tv_nsec = ns % 1000000000;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    int code = syscall(SYS_clock_gettime, clock, t);
    if (clock == CLOCK_REALTIME) step(t);
    return code;
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {  /* the kernel stamps what arrives by the same clock */
    ssize_t size = ((ssize_t (*)(int, struct msghdr *, int))dlsym(RTLD_NEXT, "recvmsg"))(fd, message, flags);
    for (struct cmsghdr *c = size < 0 ? NULL : CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            step(&t);
            memcpy(CMSG_DATA(c), &t, sizeof t);
        }
    return size;
}
"""


def stepped_clock(scene: Scene, strength: int) -> list[Seen]:
    """The wall clock is set while the load runs: as all of the harness sees it, through a preloaded clock_gettime and recvmsg."""
    (scene.folder / "step.c").write_text(STEP)
    library = scene.folder / "step.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, scene.folder / "step.c"], check=True)
    stepped = scene.folder / "stepped"
    scene.env = {"LD_PRELOAD": str(library), "STEP_FILE": str(stepped), "STEP_S": ("0.2", "2", "3600")[strength]}
    found = []
    for _ in range(scene.repeats):
        stepped.unlink(missing_ok=True)
        found += measured(Scene(scene.folder, 1, scene.env), scenario(faulty(touches=str(stepped)), LONG))
    return found


def gpu(name: str, causes: Sequence[str], line: str, strengths: Mapping[str, str]) -> Fault:
    """A GPU that NVML's stand-in plays. line: of its script, with a value of `strengths` in place of {}."""

    def run(scene: Scene, strength: int) -> list[Seen]:
        library = scene.folder / "libnvidia-ml.so.1"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, NVML], check=True)
        lines = [*(f"0 0 {what}" for what in GPU), line.format(list(strengths.values())[strength])]
        (scene.folder / "nvml.txt").write_text("\n".join(lines) + "\n")
        scene.env = {"LD_LIBRARY_PATH": str(scene.folder), "NVML_STANDIN": str(scene.folder / "nvml.txt")}
        return measured(scene, scenario(FAKE, MEDIUM, scene.repeats))

    return Fault(name, tuple(causes), tuple(strengths), run)


GPU = (
    "total 85899345920", "used 64424509440", "util 75", "sm 1980", "memory 2619", "celsius 60", "power 310000", "counter 310000",
    "limit 700000", "default 700000", "reasons 0", "pid engine",
)  # fmt: skip

FEW = {"1 of 20": 0.05, "1 of 5": 0.2, "every other": 0.5}


def some(**faults: object) -> dict[str, dict[str, object]]:
    """A fault of single requests at three shares of them."""
    return {words: {**faults, "share": share} for words, share in FEW.items()}


FAULTS: tuple[Fault, ...] = (
    server("warm prefix cache", ["cache_hits"], {f"{p} % of the prompt": {"cached": p / 100} for p in (2, 10, 90)}),
    server("prompt cut off by the server", ["prompt_truncated"], {f"{n} of 64 tokens": {"prompt_limit": n} for n in (60, 48, 16)}),
    server("output too short", ["length_mismatch"], {f"{p} % of the output": {"shorter": p / 100} for p in (4, 20, 50)}),
    server("burst delivery", ["burst_delivery", "few_events"], {f"{n} events a write": {"buffer_events": n} for n in (2, 8, 32)}),
    server("proxy that buffers", ["burst_delivery", "few_events", "stalled"], {f"{ms} ms": {"flush_ms": ms} for ms in (10, 50, 500)}),
    server("an event is not a token", ["few_events"], {f"{n} tokens an event": {"bundle": n} for n in (4, 10, 32)}),
    server("errors inside streams", ["failed_requests"], some(error=True)),
    server("errors inside choices", ["failed_requests"], some(error_in_choice=True)),
    server("streams that end unfinished", ["failed_requests"], some(unfinished=True)),
    server("refused requests (HTTP 500)", ["failed_requests"], some(refused=True)),
    server("hidden reasoning", ["hidden_tokens"], {f"{n} tokens": {"hidden_tokens": n} for n in (2, 16, 64)}),
    server("stalls in single streams", ["stalled"], {f"{s} s in 1 of 4": {"stall_s": s, "share": 0.25} for s in (0.1, 0.5, 2)}),
    server("stalls in all streams", ["stalled"], {f"{s} s": {"stall_s": s} for s in (0.1, 0.5, 2)}),
    server("frozen engine", ["stalled"], {f"{s} s of 6": {"freeze_s": s} for s in (0.2, 1, 4)}, LONG),
    server("unsteady engine", ["not_steady"], {f"{p} % slower at the end": {"drift": p / 100} for p in (20, 50, 200)}, LONG),
    server("no token counts", ["no_counts"], {"no usage": {"no_usage": True}}),
    server("counts of zero", ["no_counts"], {"all zero": {"zero_usage": True}}),
    server("counts too high", ["counts_disagree", "length_mismatch"], {f"{p} %": {"inflated": p / 100} for p in (5, 20, 100)}),
    server("connections dropped (hidden retries)", ["failed_requests", "retried"], some(dropped=True)),
    server("another model answers", ["wrong_model"], {"another name": {"other_model": True}}),
    server("another precision than declared", ["precision_fallback"], {"f16, not q4_0": {"precision": "q4_0", "reports_precision": "f16"}}),
    attached("sampling not sent", ["sampling_not_sent"], {f"`{name}` refused": {"rejects": name} for name in ("top_p", "temperature")}),
    server("slow disk", ["disk_wait"],
           {f"{n} readers, {p} % of the time": {"disk_readers": n, "disk_share": p / 100} for n, p in ((1, 1), (1, 10), (4, 100))}, MEDIUM),
    Fault("dummy routing", ("random_routing",), ("random weights",), dummy_routing),
    server("option not honoured", ["option_not_honoured"], {f"{n} slots of 8": {"reports_slots": n} for n in (3, 2, 1)}),
    server("context too small for the load", ["context_shift"], {f"{n} of 96 tokens": {"reports_context": n} for n in (95, 80, 64)}),
    Fault("server that another process started", ("unproven_server", "instead of the started engine"), ("by a daemon",), another_starter),
    loads("too few requests", ["few_requests"], {f"{n} for 4 streams": CLOSED.replace("40", str(n)) for n in (7, 5, 4)}),
    loads("short window", ["short_window"], {f"{n} requests of 4 tokens": SHORT.replace("N", str(n)) for n in (80, 40, 16)}),
    loads("more load than the server can serve", ["oversaturated"],
          {f"{rate} requests/s": OPEN.replace("20", str(rate)).replace("60", str(6 * rate)) for rate in (10, 15, 40)}, slots=1),
    beside("rate not achieved", ["rate_not_achieved"], stopped(0.5), OPEN),
    beside("client-bound", ["client_bound"], stopped(0.05)),
    beside("other work on the machine", ["foreign_load"], {f"{cores} cores of it": burning(cores) for cores in (0.3, 1, 4)}),
    Fault("second benchmark, allowed", ("shared_machine",), ("1 stream", "16 streams", "128 streams"), second_benchmark),
    Fault("second benchmark, refused", ("share-machine",), ("1 stream",), second_benchmark_refused),
    Fault("clock step (stand-in)", ("clock_step",), ("0.2 s", "2 s", "3,600 s"), stepped_clock),
    gpu("throttled GPU (stand-in)", ["gpu_throttled"], "1 0 reasons {}",
        {"software, heat": "32", "power brake": "128", "hardware, heat": "64"}),
    gpu("shared GPU (stand-in)", ["gpu_shared"], "{} 0 pid 1",
        {"the last 0.5 s": "2.5", "the second half": "1.5", "from the first second on": "1"}),
    Fault("killed load generator", ("client process was killed",), ("one of two", "both"), killed_worker),
    Fault("swapped data set", ("data.jsonl",), ("one word", "half the lines", "every line"), swapped_input),
    Fault("flipped bytes of samples", ("damaged",), ("1 byte", "16 bytes", "half"), flipped("*/*.parquet")),
    Fault("flipped bytes of a record", ("damaged",), ("1 byte", "16 bytes", "half"), flipped("cells/*.json")),
)  # fmt: skip
