"""Asks mlx_lm.server's own parser about command lines: the flags behind our worker's mode are that server's.

Knows no model: nothing is loaded or served, so a path or a hub id may lead nowhere.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType

REQUIREMENTS = ["mlx-lm[cpu]==0.32.2"]
NO_DEPS: list[str] = []


def main() -> int:
    sys.path.pop(0)  # this file's folder, in which the name of the engine's package is this file's
    from mlx_lm import __version__, server

    print(json.dumps({"engine": "mlx", "version": __version__}))
    for line in sys.stdin:
        request = json.loads(line)
        error = complaint(server, request["argv"])
        print(json.dumps({"name": request["name"], "accepted": error is None, **({"error": error} if error else {})}))
    return 0


def complaint(server: ModuleType, argv: list[str]) -> str | None:
    """Why the server would not run this command line; None when it would."""
    _python, script, mode, *flags = argv
    if Path(script).name != "mlx_worker.py" or mode not in ("serve", "offline"):
        return f"{script} {mode} is not how the worker is called"
    parsed: list[object] = []
    server.ModelProvider = lambda args: args
    server.run = lambda _host, _port, args: parsed.append(args)
    sys.argv = ["mlx_lm.server", *flags]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            server.main()
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    (args,) = parsed
    # argparse also takes the beginning of a flag, which the next version may share with another
    short = [flag for flag in flags if flag.startswith("--") and not hasattr(args, flag[2:].replace("-", "_"))]
    return f"abbreviated: {', '.join(short)}" if short else None


if __name__ == "__main__":
    sys.exit(main())
