"""What an adapter turns a deployment into: commands, environment and files. Plain data; starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Node:
    """One of the machines that a launch spans."""

    address: str
    """At which the others reach it."""
    ports: tuple[int, ...] = ()
    """Free TCP ports there, as many as `Traits.extra_ports` asks for."""


@dataclass(frozen=True)
class Site:
    """Where one launch happens."""

    host: str
    """Address to listen on."""
    port: int
    """Free TCP port for the server that gets the requests."""
    folder: Path
    """A private folder for this launch."""
    checkpoint: str
    """Local path of the checkpoint, or a hub id."""
    ports: tuple[int, ...] = ()
    """Further free ports, as many as `Traits.extra_ports` asks for."""
    draft: str = ""
    """Local path, or hub id, of what proposes tokens (`Speculation.draft`); '' where nothing does."""
    loras: Mapping[str, str] = field(default_factory=dict)
    """Name -> absolute path of each LoRA adapter."""
    nodes: tuple[Node, ...] = ()
    """The machines that the launch spans, that of the server that gets the requests first; empty: this one only."""
    on_node: tuple[str, ...] = ()
    """Starts a command on one of `nodes`, as ssh does: (*on_node, ADDRESS, COMMAND). For engines with their own launcher, such as MPI."""

    @property
    def address(self) -> tuple[str, ...]:
        """('--host', HOST, '--port', PORT)."""
        return self.address_at(self.port)

    def address_at(self, port: int) -> tuple[str, ...]:
        return ("--host", self.host, "--port", str(port))

    def on(self, node: int) -> Site:
        """The same for servers on one of `nodes`: they listen on its address, and have its ports."""
        return replace(self, host=self.nodes[node].address, ports=self.nodes[node].ports) if self.nodes else self

    @property
    def is_local(self) -> bool:
        """Whether the checkpoint is a local path, so that nothing has to be downloaded."""
        return Path(self.checkpoint).is_absolute()


@dataclass(frozen=True)
class Member:
    """A process that a deployment runs besides the one that gets the requests: a prefill server, a rank on another node."""

    name: str
    """Names its log and its folder, Site.folder / name."""
    argv: tuple[str, ...]
    """Program and arguments; no shell is involved."""
    port: int
    """Where it listens. It is ready when the adapter's `readiness` says so for this port. 0: it serves nothing, and is not waited for."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal inherited environment."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Written into its folder before it starts."""
    node: int = 0
    """Which of Site.nodes it runs on."""


@dataclass(frozen=True)
class Launch:
    """Everything the runtime needs to start a deployment."""

    argv: tuple[str, ...]
    """Program and arguments of the server that gets the requests; no shell is involved."""
    served_name: str
    """The model name that requests must carry."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal inherited environment."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Written into Site.folder before the start."""
    notes: tuple[str, ...] = ()
    """Every approximation that was made, e.g. 'bf16 KV became auto'."""
    ready_timeout_s: float = 600.0
    """How long loading may take."""
    members: tuple[Member, ...] = ()
    """Servers that are started, all at once, and must be ready before `argv` is started."""

    @property
    def commands(self) -> Sequence[tuple[str, tuple[str, ...], Mapping[str, str]]]:
        """(name, argv, env) of every command in starting order: the members, then the main one, which has an empty name."""
        return [*((member.name, member.argv, member.env) for member in self.members), ("", self.argv, self.env)]
