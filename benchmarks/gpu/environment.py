"""Makes the GPU kit's environment on the machine that measures: a virtual environment that sees the packages of the Python that runs this.

That Python has torch (and usually transformers, numpy, pandas, pyarrow); what it lacks comes from the kit's wheels, without a network. The
same environment runs enginebench and transformers. Only the standard library, because it runs before anything is installed.
"""

import argparse
import importlib.util
import json
import os
import re
import site
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

COMPLETE = "complete.json"
LATER = ("duckdb", "plotly")
"""Requirements of enginebench that measuring does not need (the index over runs, the page): installed only if their wheels are here."""


def base_folders() -> list[str]:
    """Where the Python that runs this finds its packages, its user's folder excepted."""
    found = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return [folder for folder in dict.fromkeys(found) if Path(folder).is_dir()]


def requirements(wheel: Path) -> list[str]:
    """What a wheel requires, without its extras."""
    with zipfile.ZipFile(wheel) as content:
        (name,) = (each for each in content.namelist() if each.endswith(".dist-info/METADATA"))
        lines = content.read(name).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line]


def wanted(wheel: Path, wheels: Path) -> list[str]:
    """The requirements of enginebench's wheel that are to be installed with it."""
    named = {requirement: re.split(r"[^\w-]", requirement)[0] for requirement in requirements(wheel)}
    return [each for each, name in named.items() if name not in LATER or any(wheels.glob(f"{name}-*.whl"))]


def pip(wheels: Path) -> list[str]:
    """The pip of the Python that runs this, or the kit's own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [sys.executable, str(max(wheels.glob("pip-*.whl")) / "pip")]


def make(kit: Path, folder: Path, log: Path) -> None:
    """A virtual environment in `folder`. Exits with the last lines of pip's output where that fails."""
    run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], log)
    (own,) = folder.glob("lib/python3*/site-packages")
    # A .pth and not --system-site-packages: the Python that runs this may be in a virtual environment itself.
    (own / "kit_base.pth").write_text("\n".join(base_folders()) + "\n")
    wheels, python = kit / "wheels", str(folder / "bin" / "python")
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-index", "--find-links", str(wheels)]
    install = [*pip(wheels), "--python", python, "install", *options]
    wheel = max(wheels.glob("enginebench-*.whl"))
    run([*install, "-r", str(kit / "gpu" / "requirements.txt"), *wanted(wheel, wheels)], log)
    run([*install, "--no-deps", str(wheel)], log)


def run(command: Sequence[str], log: Path) -> None:
    with log.open("a") as sink:
        sink.write(f"$ {' '.join(command)}\n")
        sink.flush()
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        sys.exit(f"environment.py: exit code {code}; a wheel may be in a piece that is not here yet. {log}:\n{last}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kit", type=Path, required=True, help="the unpacked pieces")
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    began, env = time.monotonic(), given.work / "env"
    if (env / COMPLETE).exists():
        return
    make(given.kit, env, given.work / "logs" / "environment.log")
    bench, home = str(env / "bin" / "bench"), {**os.environ, "ENGINEBENCH_HOME": str(given.work / "home")}
    used = subprocess.run(
        [bench, "engines", "use", "transformers", str(env / "bin" / "python")], env=home, capture_output=True, text=True, check=False
    )
    seconds = round(time.monotonic() - began, 1)
    (env / COMPLETE).write_text(json.dumps({"seconds": seconds, "base": sys.executable, "transformers": used.returncode == 0}))
    print(f"environment: {seconds} s; {(used.stdout or used.stderr).strip()}", flush=True)


if __name__ == "__main__":
    main()
