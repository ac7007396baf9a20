"""A loopback proxy in front of the servers of one deployment: prefill on one side, decode on the other, or plain replicas.

    python pd_proxy.py --host H --port P --prefill http://127.0.0.1:P1 --decode http://127.0.0.1:P2 --protocol vllm|sglang|plain

Several --prefill and --decode servers take turns. Every POST is a generation; its response is forwarded as it arrives, byte for byte: -
vllm: first to a prefill server, for one token and without a stream; the `kv_transfer_params` of its response go to a decode server with the
  original request. Both get the same X-Request-Id.
- sglang: at once to a prefill and a decode server, with the fields that connect them: bootstrap_host, _port and _room. --bootstrap-port
  belongs to the --prefill at the same position. One prompt per request.
- plain: to the next server, unchanged.

GET /health is 200 when it is 200 on every server, /metrics the text of all servers; any other GET goes to the first decode server. A lost
server gives 502, or the end of the connection where the response had begun. Standard library only (uvloop, where it is installed).
Unverified: the sglang protocol against that engine, whose KV transfer needs GPUs.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace

from pd_http import Relay, Server, Whole
from worker_http import Answer, Client, Refused, Reply, Request, as_json

PREFILL_ONLY = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None, "remote_host": None,
    "remote_port": None,
}  # fmt: skip
"""kv_transfer_params of a request whose KV another vLLM server will fetch."""

MAX_ROOM = 2**63 - 1


class Proxy:
    """Decides which server gets which request, in which form."""

    def __init__(self, options: argparse.Namespace) -> None:
        ports = options.bootstrap_port or [0] * len(options.prefill)
        self.servers: list[Server] = [*options.prefill, *options.decode]
        self.first_decode: Server = options.decode[0]
        self.prefill: Iterator[tuple[Server, int]] = itertools.cycle(list(zip(options.prefill, ports, strict=True)))
        self.decode: Iterator[Server] = itertools.cycle(options.decode)
        self.all = itertools.cycle(self.servers)
        ways: dict[str, Answer] = {"vllm": self.vllm, "sglang": self.sglang, "plain": self.plain}
        self.generate = ways[options.protocol]
        self.draining: set[asyncio.Task[Whole]] = set()

    async def answer(self, request: Request, reply: Reply) -> None:
        if request.method == b"POST":
            await self.generate(request, reply)
        elif request.path in (b"/health", b"/metrics"):
            answers = await asyncio.gather(*[server.fetch(bytes_for(server, request)) for server in self.servers])
            bad = next((answer for answer in answers if answer.head.status != 200), None)
            if bad is not None:
                bad.relay(reply)
            else:
                reply.say(200, b"".join([answer.body.rstrip(b"\n") + b"\n" for answer in answers]), b"text/plain; charset=utf-8")
        else:
            await self.first_decode.ask(bytes_for(self.first_decode, request), Relay(reply))

    async def plain(self, request: Request, reply: Reply) -> None:
        server = next(self.all)
        await server.ask(bytes_for(server, request), Relay(reply))

    async def vllm(self, request: Request, reply: Reply) -> None:
        request, fields = named(request), fields_of(request)
        one_token = {name: 1 for name in ("max_completion_tokens", "min_tokens") if fields.get(name)}
        fields |= {"stream": False, "max_tokens": 1, **one_token, "kv_transfer_params": PREFILL_ONLY}
        fields.pop("stream_options", None)  # vLLM refuses it without a stream
        (prefill, _), decode = next(self.prefill), next(self.decode)
        answer = await prefill.fetch(bytes_for(prefill, replace(request, body=as_json(fields))))
        if answer.head.status != 200:
            return answer.relay(reply)
        try:
            handed = json.loads(answer.body)["kv_transfer_params"]
        except (ValueError, KeyError, TypeError):
            handed = None
        if not isinstance(handed, dict):  # decode would silently compute the prompt again
            raise Refused(f"{prefill.url} returned no kv_transfer_params: it needs --kv-transfer-config", 502)
        return await decode.ask(bytes_for(decode, with_fields(request, {"kv_transfer_params": handed})), Relay(reply))

    async def sglang(self, request: Request, reply: Reply) -> None:
        fields_of(request)
        (prefill, port), decode = next(self.prefill), next(self.decode)
        room = {"bootstrap_host": prefill.host, "bootstrap_port": port, "bootstrap_room": random.randint(0, MAX_ROOM)}  # noqa: S311
        request = with_fields(request, room)
        first = asyncio.create_task(prefill.fetch(bytes_for(prefill, request)))
        second = asyncio.create_task(decode.ask(bytes_for(decode, request), Relay(reply)))
        try:
            await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            if not second.done() and not reply.begun and (first.exception() is not None or first.result().head.status != 200):
                second.cancel()  # it waits for KV that will not arrive
                await asyncio.wait({second})
                return first.result().relay(reply)
            await second
        except BaseException:
            first.cancel()
            second.cancel()
            raise
        self.draining.add(first)  # the client has its response; let the prefill server's finish
        first.add_done_callback(self._drained)
        return None

    def _drained(self, task: asyncio.Task[Whole]) -> None:
        self.draining.discard(task)
        if not task.cancelled() and (error := task.exception()):
            print(f"after the response: {error}", file=sys.stderr, flush=True)


def bytes_for(server: Server, request: Request) -> bytes:
    own = b"Host: %b:%d\r\nContent-Length: %d\r\n" % (server.host.encode(), server.port, len(request.body))
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (request.method, request.path, own, request.head.end_to_end(), request.body)


def named(request: Request) -> Request:
    """The request with an X-Request-Id: the client's if it has one."""
    if request.head.get(b"x-request-id"):
        return request
    name = (b"X-Request-Id", uuid.uuid4().hex.encode())
    return replace(request, head=replace(request.head, headers=(*request.head.headers, name)))


def fields_of(request: Request) -> dict[str, object]:
    """The body as a JSON object. Raises Refused."""
    try:
        fields = json.loads(request.body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not fields:
        raise Refused("the body is not a JSON object")
    return fields


def with_fields(request: Request, fields: dict[str, object]) -> Request:
    """The request with further fields, appended as text because serializing a long prompt again takes time."""
    return replace(request, body=request.body.rstrip()[:-1] + b"," + json.dumps(fields).encode()[1:])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("--prefill", type=Server, action="append", default=[], metavar="URL")
    add("--decode", type=Server, action="append", required=True, metavar="URL")
    add("--protocol", choices=("vllm", "sglang", "plain"), required=True)
    add("--bootstrap-port", type=int, action="append", default=[], metavar="PORT", help="sglang: of the --prefill at the same position")
    options = parser.parse_args()
    if options.protocol != "plain" and not options.prefill:
        parser.error(f"--protocol {options.protocol} needs a --prefill")
    if len(options.bootstrap_port) != (len(options.prefill) if options.protocol == "sglang" else 0):
        parser.error("--protocol sglang needs a --bootstrap-port for every --prefill; the others take none")
    return options


async def main(options: argparse.Namespace) -> None:
    proxy = Proxy(options)
    server = await asyncio.get_running_loop().create_server(lambda: Client(proxy.answer), options.host, options.port, backlog=2048)
    print(f"{options.protocol} proxy on {options.host}:{options.port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    chosen = arguments()
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(chosen))
