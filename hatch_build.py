"""Builds the load generator's receiver (harness/enginebench/loadgen/transport/receive.c) beside its source, where that is possible.

It needs Linux and a C compiler, and nothing else: the library is plain C, used through ctypes. Without it the package is complete, and
the event loop stamps what arrives; `bench doctor` says which it is.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("harness/enginebench/loadgen/transport/receive.c")
LIBRARY = SOURCE.with_name("_receive.so")


class ReceiverHook(BuildHookInterface[Any]):
    """Adds the library to the wheel, and the platform to the wheel's name."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a wheel is built, an editable one included."""
        if self.target_name != "wheel":
            return
        failure = build(Path(self.root))
        if failure is not None:
            self.app.display_warning(f"without the receiver in C ({failure}): the event loop stamps what arrives")
            return
        build_data["artifacts"].append(str(LIBRARY))
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")


def build(root: Path) -> str | None:
    """Compile; the reason if there is nothing to use afterwards. What an earlier build left is gone in any case."""
    library = root / LIBRARY
    library.unlink(missing_ok=True)
    if not sys.platform.startswith("linux"):
        return "it needs Linux"
    named = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if named is None:
        return "there is no C compiler"
    argv = [*shlex.split(named), "-O2", "-shared", "-fPIC", "-o", str(library), str(root / SOURCE)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else f"{shlex.join(argv)} failed: {done.stderr.strip()[-500:]}"
