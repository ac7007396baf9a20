"""A fake engine on a real socket: its token schedule is exact, and every fault is a flag.

It has no model: token i of a request is sent at t0 + ttft + i * itl, where t0 is the time its last byte was read (or a slot became free).
The text depends only on the prompt. Implements OpenAI's, Ollama's, SGLang's or TGI's protocol, streaming or not. Standard library only
(uvloop, where it is installed).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys

from fake_native import ROUTES
from fake_server import Connection, Engine

USAGE = ("separate", "choices", "continuous", "none")
MALFORMED = ("no", "json", "utf8", "chunk")


def arguments() -> argparse.Namespace:
    """Every flag; the adapter's options have the same names."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--model", default="fake")
    add("--context", type=int, default=4096)
    add("--tls-cert", default="", help="certificate (PEM); with --tls-key the server speaks HTTPS")
    add("--tls-key", default="")
    add("--close", action="store_true", help="close the connection after every response, with Connection: close")
    timing(parser)
    faults(parser)
    return parser.parse_args()


def timing(parser: argparse.ArgumentParser) -> None:
    """Speed and format of the streams."""
    add = parser.add_argument
    add("--protocol", choices=tuple(ROUTES), default="openai")
    add("--ttft-ms", type=float, default=20.0)
    add("--prefill-ms-per-token", type=float, default=0.0, help="added to the time to the first token, for each prompt token")
    add("--itl-ms", type=float, default=5.0)
    add("--tick-ms", type=float, default=0.0, help="all streams in lockstep: one event of each at every tick, whatever the ITL")
    add("--batch-events", type=int, default=0, help="events in one write, at the last one's time; with --itl-ms 0 as fast as possible")
    add("--tokens-per-event", type=int, default=1, help="tokens in each event; the next event comes that many ITLs later")
    add("--reasoning-tokens", type=int, default=0, help="tokens of reasoning before the answer, where the protocol has it")
    add("--tool-call", action="store_true", help="chat: the answer is a tool call")
    add("--incremental", action="store_true", help="sglang: only new text in each event")
    add("--role-chunk", action="store_true", help="chat: an event with the role and no text comes first")
    add("--no-done", action="store_true", help="end the stream without data: [DONE]")
    add(
        "--usage",
        choices=USAGE,
        default="separate",
        help="openai: in a separate event, with the last choices, with all, nowhere",
    )
    add("--pings", action="store_true", help="comments before the first token and between events")
    add("--slots", type=int, default=0, help="requests served at once; others queue (0: no limit)")
    add("--burst", action="store_true", help="send all tokens at once, at the last one's time")
    add("--short-output", type=int, default=0, help="stop after this many tokens, whatever the request asks for")
    add("--cached-tokens", type=int, default=0, help="prompt tokens to report as served from a cache")


def faults(parser: argparse.ArgumentParser) -> None:
    """Faults."""
    add = parser.add_argument
    add("--stall-after", type=int, default=0, help="pause after this many tokens, for --stall-s")
    add("--stall-s", type=float, default=1.0)
    add("--load-s", type=float, default=0.0, help="seconds of 503 after the start")
    add("--never-ready", action="store_true")
    add("--slow-accept-s", type=float, default=0.0, help="seconds before a new connection is read")
    add("--malformed", choices=MALFORMED, default="no", help="what is malformed in the second event")
    add("--cut-after", type=int, default=0, help="close the connection after this many tokens")
    add("--in-stream-error", type=int, default=0, help="send an error event after this many tokens")
    add("--crash-after", type=int, default=0, help="exit when another request follows after this many")
    add("--http-error", type=int, default=0, help="answer every generation with this status")
    add("--exit-at-start", action="store_true")


async def main(options: argparse.Namespace) -> None:
    """Serve until killed."""
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
