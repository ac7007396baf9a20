"""A fake engine on a real socket: its token schedule is exact, and every fault is a flag. Standard library only (uvloop, if installed).

Token i of a request is sent at t0 + ttft + i * itl, where t0 is the time its last byte was read (or a slot became free).
"""

import argparse
import asyncio
import contextlib
import ssl
import sys

import fake_ranks
from fake_native import ROUTES
from fake_server import Connection, Engine

FLAGS: dict[str, bool | int | float | str] = {
    "host": "127.0.0.1", "port": 0, "model": "fake", "context": 4096, "tls-cert": "", "tls-key": "", "close": False, "protocol": "openai",
    "ttft-ms": 20.0, "prefill-ms-per-token": 0.0, "itl-ms": 5.0, "tick-ms": 0.0, "batch-events": 0, "tokens-per-event": 1,
    "reasoning-tokens": 0, "tool-call": False, "incremental": False, "role-chunk": False, "no-done": False, "usage": "separate",
    "pings": False, "slots": 0, "burst": False, "short-output": 0, "cached-tokens": 0, "stall-after": 0, "stall-s": 1.0, "load-s": 0.0,
    "never-ready": False, "slow-accept-s": 0.0, "malformed": "no", "cut-after": 0, "in-stream-error": 0, "crash-after": 0, "http-error": 0,
    "exit-at-start": False, "loss": 0.0, "nodes": 1, "node-rank": 0, "head": "",
}  # fmt: skip
"""Flag -> default. The adapter's options of the same names say what they mean; --tls-cert and --tls-key (PEM) make it speak HTTPS;
--nodes, --node-rank and --head (HOST:PORT) make it one rank of several (see fake_ranks)."""
CHOICES = {"protocol": ROUTES, "usage": ("separate", "choices", "continuous", "none"), "malformed": ("no", "json", "utf8", "chunk")}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in FLAGS.items():
        if default is False:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default, choices=CHOICES.get(name), required=name == "port")
    return parser.parse_args()


async def main(options: argparse.Namespace) -> None:
    if options.nodes > 1:
        await fake_ranks.join(options.nodes, options.node_rank, options.head)
    engine = Engine(options)
    tls: ssl.SSLContext | None = None
    if options.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls_cert, options.tls_key)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Connection(engine, reader, writer).serve()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            writer.transport.abort()  # the client disconnected, or --cut-after

    server = await asyncio.start_server(connected, options.host, options.port, limit=1 << 24, backlog=2048, ssl=tls)
    print(f"fake engine on {options.host}:{options.port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    chosen = arguments()
    if chosen.exit_at_start:
        sys.exit("fake engine: out of memory before it began (as asked by --exit-at-start)")
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(chosen))
