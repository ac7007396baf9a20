"""Agent traces of the KV cache tester (Weka, InferenceX AgentX): a JSON object per session, with the blocks of every context.

`requests` lists calls with t, api_time and think_time (s), in, out and hash_ids, and subagents with calls of their own. A subagent begins
when the call before it has ended, and the next call of the main agent waits for it unless it was only launched. Calls of a subagent have
times from the start of the session or, where one is earlier than its subagent, from the start of the subagent. Sessions have no common
clock, so they all begin at once.
"""

from collections.abc import Hashable, Iterable, Iterator

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, fitting, ids_of, time_of

_ASIDE = "async_launched"
"""Status of a subagent that the main agent does not wait for."""


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    for number, row in enumerate(rows):
        yield from _Session(row, number).entries()


class _Session:
    def __init__(self, row: Row, number: int) -> None:
        self.number, self.size = number, count_of(row["block_size"])
        if not self.size:
            raise ValueError("block_size is 0")
        self.scope: Hashable = number if row.get("hash_id_scope", "local") == "local" else None
        self.calls = row["requests"]
        self.ends: dict[Hashable, float] = {}
        """When each call ended, in the recording."""

    def entries(self) -> Iterator[Entry]:
        before: tuple[Hashable, ...] = ()
        joined: list[Hashable] = []
        for place, call in enumerate(self.calls):
            if call.get("type") == "subagent":
                last = None
                for entry in self._subagent(call, place, before):
                    yield entry
                    last = entry.id
                if last is not None and call.get("status") != _ASIDE:
                    joined.append(last)
                continue
            entry = self._entry(call, (self.number, place), time_of(call["t"]), (*before, *joined), thought=not joined)
            yield entry
            before, joined = (entry.id,), []

    def _subagent(self, agent: Row, place: int, before: tuple[Hashable, ...]) -> Iterator[Entry]:
        began, calls = time_of(agent.get("t", 0)), agent["requests"]
        shift = began if any(time_of(call["t"]) < began for call in calls) else 0.0
        for inner, call in enumerate(calls):
            entry = self._entry(call, (self.number, place, inner), time_of(call["t"]) + shift, before, thought=inner > 0)
            yield entry
            before = (entry.id,)

    def _entry(self, call: Row, name: Hashable, time: float, after: tuple[Hashable, ...], *, thought: bool) -> Entry:
        """thought: the call follows one other call, so that its `think_time` is the time between the two."""
        tokens = count_of(call["in"])
        blocks = fitting(ids_of(call.get("hash_ids") or [], "hash_ids"), tokens, self.size)
        self.ends[name] = time + time_of(call.get("api_time") or 0)
        delay = max(0.0, time - max((self.ends[other] for other in after), default=time))
        if thought and call.get("think_time") is not None:
            delay = max(0.0, time_of(call["think_time"]))
        scoped = tuple((self.scope, block) for block in blocks)
        return Entry(time, tokens, count_of(call["out"]), scoped, self.size, name, after, delay if after else None)


FORMAT = TraceFormat(
    "weka", "Agent traces of the KV cache tester (Weka, AgentX)", ("block_size", "requests"), _read, "seconds",
    "https://github.com/callanjfox/kv-cache-tester/blob/main/docs/trace_replay_tester.md",
    lost="when sessions began relative to each other, and which model a call used",
)  # fmt: skip
