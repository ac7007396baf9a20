"""The fake engine on several nodes: every rank is connected to rank 0, which serves when all are, and no rank outlives another.

As in real engines, rank 0 listens where all have been told to find it, and the other ranks serve no requests.
"""

import asyncio
import os
import sys

RETRY_S = 0.05


async def join(nodes: int, rank: int, head: str) -> None:
    """Returns when this rank may serve; only rank 0 ever does. Every rank ends when another one does."""
    host, _, port = head.rpartition(":")
    if rank == 0:
        await _gather(nodes, host, int(port))
    else:
        await _follow(rank, host, int(port))


async def _gather(nodes: int, host: str, port: int) -> None:
    missing = set(range(1, nodes))
    complete = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        rank = int(await reader.readline())
        print(f"rank {rank} of {nodes} is here", flush=True)
        missing.discard(rank)
        if not missing:
            complete.set()
        await reader.read()
        _end(f"rank 0: lost rank {rank}")

    await asyncio.start_server(connected, host, port)
    print(f"rank 0 of {nodes} waits on {host}:{port}", flush=True)
    await complete.wait()


async def _follow(rank: int, host: str, port: int) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            break
        except OSError:  # rank 0 is not up yet
            await asyncio.sleep(RETRY_S)
    writer.write(b"%d\n" % rank)
    print(f"rank {rank} is connected to {host}:{port}", flush=True)
    await reader.read()
    _end(f"rank {rank}: lost rank 0")


def _end(why: str) -> None:
    print(f"fake engine: {why}", file=sys.stderr, flush=True)
    os._exit(4)
