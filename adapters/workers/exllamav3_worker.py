"""ExLlamaV3 as a server (`serve`) or as a batch worker (`offline`), and TabbyAPI (`tabbyapi`), on a given number of GPUs.

    exllamav3_worker.py serve --gpus 1 --slots 8 --served-name NAME --host 127.0.0.1 --port 8000 FLAGS
    exllamav3_worker.py offline --gpus 1 --slots 8 FLAGS
    exllamav3_worker.py tabbyapi --gpus 2 /opt/tabbyAPI/main.py --config config.yml

FLAGS are ExLlamaV3's own. It uses every visible GPU, so this file sets which ones are visible before ExLlamaV3 is imported.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from exllamav3_scheduler import Backend
from exllamav3_server import serve
from worker_protocol import BatchEngine, run_worker

VISIBLE = "CUDA_VISIBLE_DEVICES"
ROUTE = "/enginebench"
"""Where the server reports its configuration."""


def claim(gpus: int) -> None:
    """Keep the first `gpus` of the visible devices. Exits when fewer are named."""
    named = os.environ.get(VISIBLE)
    devices = [str(index) for index in range(gpus)] if named is None else [name for name in named.split(",") if name]
    if len(devices) < gpus:
        sys.exit(f"{VISIBLE}={named} leaves {len(devices)} of the {gpus} GPUs that are needed")
    os.environ[VISIBLE] = ",".join(devices[:gpus])


def arguments() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="exllamav3_worker", allow_abbrev=False)
    p.add_argument("mode", choices=("serve", "offline", "tabbyapi"))
    p.add_argument("--gpus", type=int, default=1)
    p.add_argument("--slots", type=int, default=1, help="most requests in the batch")
    p.add_argument("--served-name", default="model")
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--port", type=int, default=8000)
    return p


def main(argv: Sequence[str]) -> int:
    args, rest = arguments().parse_known_args(argv)
    claim(args.gpus)
    if args.mode == "tabbyapi":
        os.execv(sys.executable, [sys.executable, *rest])  # noqa: S606  # no shell, by design

    # ExLlamaV3 may compile its CUDA extension when it is imported, which counts as loading.
    def offline() -> BatchEngine:
        from exllamav3_backend import Loaded, Offline, parse

        return Offline(Loaded(parse(rest), args.slots, args.gpus), ROUTE)

    def serving() -> Backend:
        from exllamav3_backend import Loaded, Serving, parse

        return Serving(Loaded(parse(rest), args.slots, args.gpus))

    if args.mode == "offline":
        return run_worker(offline)
    return serve(serving, model=args.served_name, host=args.host, port=args.port)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
