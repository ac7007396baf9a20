"""A fake engine over a real socket: its token schedule is exact and every way an engine can misbehave is a flag.

It knows no model: token i of a request leaves at t0 + ttft + i * itl, t0 being the moment its last byte was read (or a slot came
free). The text depends on the prompt alone. Speaks OpenAI's, Ollama's, SGLang's or TGI's protocol, streaming or not. Standard
library only (uvloop, where it is there).
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
    """Every knob; the adapter's options have the same names."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--model", default="fake")
    add("--context", type=int, default=4096)
    add("--tls-cert", default="", help="certificate (PEM); with --tls-key the server speaks HTTPS")
    add("--tls-key", default="")
    add("--close", action="store_true", help="close the connection after every response, and say so")
    manners(parser)
    faults(parser)
    return parser.parse_args()


def manners(parser: argparse.ArgumentParser) -> None:
    """Speed and spelling."""
    add = parser.add_argument
    add("--protocol", choices=tuple(ROUTES), default="openai")
    add("--ttft-ms", type=float, default=20.0)
    add("--prefill-ms-per-token", type=float, default=0.0, help="added to the time to the first token, for each prompt token")
    add("--itl-ms", type=float, default=5.0)
    add("--tick-ms", type=float, default=0.0, help="all streams in lockstep: one event of each at every tick, whatever the ITL")
    add("--batch-events", type=int, default=0, help="events in one write, when the last is due; with --itl-ms 0 as fast as it goes")
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
        help="openai: in an event of its own, with the last choices, with all, nowhere",
    )
    add("--pings", action="store_true", help="comments before the first token and between events")
    add("--slots", type=int, default=0, help="requests served at once, the others queue (0: no limit)")
    add("--burst", action="store_true", help="deliver all tokens at once, when the last one is due")
    add("--short-output", type=int, default=0, help="stop after this many tokens whatever was asked")
    add("--cached-tokens", type=int, default=0, help="prompt tokens to report as served from a cache")


def faults(parser: argparse.ArgumentParser) -> None:
    """What goes wrong."""
    add = parser.add_argument
    add("--stall-after", type=int, default=0, help="pause after this many tokens, for --stall-s")
    add("--stall-s", type=float, default=1.0)
    add("--load-s", type=float, default=0.0, help="answer 503 for so long after the start")
    add("--never-ready", action="store_true")
    add("--slow-accept-s", type=float, default=0.0, help="leave every new connection alone for so long")
    add("--malformed", choices=MALFORMED, default="no", help="what the second event breaks")
    add("--cut-after", type=int, default=0, help="close the connection after this many tokens")
    add("--in-stream-error", type=int, default=0, help="send an error event after this many tokens")
    add("--crash-after", type=int, default=0, help="exit when this many requests have been answered and another one comes")
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
            writer.transport.abort()  # the client went away, or --cut-after

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
