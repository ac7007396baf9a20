"""The line of an engine's log that says why it ended, from logs as engines write them."""

from __future__ import annotations

import pytest
from enginebench.runtime import telling_line

VLLM_MEMORY = """\
INFO 11-30 10:00:01 [gpu_worker.py:298] Available KV cache memory: 2.04 GiB
ERROR 11-30 10:00:02 [core.py:842] EngineCore failed to start.
ERROR 11-30 10:00:02 [core.py:842] Traceback (most recent call last):
ERROR 11-30 10:00:02 [core.py:842]   File "/venv/vllm/v1/engine/core.py", line 833, in run_engine_core
ERROR 11-30 10:00:02 [core.py:842]     engine_core = EngineCoreProc(*args, **kwargs)
ERROR 11-30 10:00:02 [core.py:842] ValueError: To serve at least one request, 16.00 GiB KV cache is needed, 2.04 GiB is available.
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7)   File "/venv/bin/vllm", line 8, in <module>
(APIServer pid=7)     raise RuntimeError(
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
/usr/lib/python3.12/multiprocessing/resource_tracker.py:279: UserWarning: resource_tracker: There appear to be 1 leaked objects
"""
ARGPARSE = "usage: vllm serve [model_tag] [options]\n\nvllm serve: error: unrecognized arguments: --no-such-flag 3\n"
NIXL = 'Traceback (most recent call last):\n  File "x.py", line 3, in <module>\n    main()\nRuntimeError: NIXL is not available\n'
LLAMA = """\
llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'walrus'
llama_model_load_from_file_impl: failed to load model
common_init_from_params: failed to load model '/m/x.gguf'
srv    load_model: failed to load model, '/m/x.gguf'
main: exiting due to model loading error
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (VLLM_MEMORY, "ValueError: To serve at least one request, 16.00 GiB KV cache is needed, 2.04 GiB is available."),
        (ARGPARSE, "vllm serve: error: unrecognized arguments: --no-such-flag 3"),
        (NIXL, "RuntimeError: NIXL is not available"),
        (LLAMA, "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'walrus'"),
        ("loading\nKilled\n\n", "Killed"),
        ("", ""),
    ],
)
def test_the_line_that_says_why(log: str, said: str) -> None:
    assert telling_line(log) == said


def test_a_telling_line_is_short() -> None:
    assert len(telling_line("error: " + "x" * 5000)) == 240


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            (
                "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.\n\n"
                "[2025-11-30 12:00:00] Received sigquit from a child process. It usually means the child failed.\nKilled"
            ),
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
        ),
        (
            "main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080\nmain: exiting due to HTTP server error",
            "main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080",
        ),
        (
            "thread 'main' panicked at src/main.rs:3: address in use\nnote: run with `RUST_BACKTRACE=1` environment variable to display",
            "thread 'main' panicked at src/main.rs:3: address in use",
        ),
        (
            (
                'Traceback (most recent call last):\n  File "x"\nAssertionError: bad\nException ignored in: <function X.__del__>\n'
                "Traceback (most recent call last):\n  File \"y.py\", line 9\nAttributeError: 'NoneType' object has no attribute 'close'"
            ),
            "AssertionError: bad",
        ),
        ('!!! Segfault\n  File "<unknown>", line 0\nSegmentation fault (core dumped)', "Segmentation fault (core dumped)"),
    ],
)
def test_the_cause_stands_before_what_it_led_to(log: str, line: str) -> None:
    assert telling_line(log) == line
