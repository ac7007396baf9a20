"""Makes the environment of one further engine out of the kit's wheels, on top of the packages of the Python that has torch. No network.

Does nothing where it is made already. The wheels are installed without what they require: what they need of torch is the machine's own, and
`pip check` says what is missing.
"""

import argparse
import subprocess
import sys
from pathlib import Path

COMPLETE = "complete"


def join(folder: Path) -> None:
    """Put wheels together that came in parts."""
    for first in sorted(folder.glob("*.part000")):
        with first.with_suffix("").open("wb") as out:
            for part in sorted(folder.glob(f"{first.stem}.part*")):
                out.write(part.read_bytes())
                part.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    if (given.folder / COMPLETE).exists():
        return 0
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(given.folder)], check=True)
    (own,) = given.folder.glob("lib/python3*/site-packages")
    base = next(Path(sys.prefix).glob("lib/python3*/site-packages")) / "kit_base.pth"
    (own / base.name).write_text(base.read_text())
    pip = [sys.executable, "-m", "pip", "--python", str(given.folder / "bin" / "python"), "--disable-pip-version-check"]
    join(given.wheels)
    wheels = sorted(str(path) for path in given.wheels.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-index", "--no-deps", *wheels], check=True)
    subprocess.run([*pip, "check"], check=False)  # what is missing is said here, and shows when the engine starts
    (given.folder / COMPLETE).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
