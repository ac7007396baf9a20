"""A real Slurm on this machine: munged, slurmctld and two slurmd, started with a configuration of their own and ended by their ids.

Each slurmd has a UTS namespace, and so a host name, of its own, and a folder of leases of its own: units on the two nodes do not see each
other, as on two machines. Needs Debian's slurm-wlm and munge, and root, because namespaces do. All of it listens on the loopback only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv", "unshare")
NODES = ("node1", "node2")
MOST_JOBS = 150
"""MaxJobCount: of all users together."""
T = TypeVar("T")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_min_interval=100000
ReturnToService=2
KillWait=3
MinJobAge=300
MaxArraySize=11
MaxJobCount={most}
SlurmdTimeout=300
MpiDefault=none
MailProg=/bin/true
GresTypes=gpu
NodeName=node1 NodeHostname=node1 NodeAddr=127.0.0.1 Port={node1} CPUs=1 RealMemory=1000 Feature=first,amd64 Gres=gpu:h100:2
NodeName=node2 NodeHostname=node2 NodeAddr=127.0.0.1 Port={node2} CPUs=1 RealMemory=1000 Feature=second,amd64
PartitionName=both Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
PartitionName=minute Nodes=node2 MaxTime=1 State=UP
"""


def missing() -> str | None:
    """What keeps a cluster from running here."""
    lacking = [program for program in PROGRAMS if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)} missing): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "only root may start a cluster of two nodes on one machine"


class SlurmCluster:
    """The cluster while its `with` block lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.env: Mapping[str, str] = {"SLURM_CONF": str(self.configuration), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        self.leases = folder / "leases"
        """Where units find the leases of their node."""
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __call__(self, *command: str) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(command, env={**os.environ, **self.env}, text=True, capture_output=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.stop)
            self._configure()
            munge = self.folder / "munge"
            self._start(
                "munged", "munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key",
                f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
            )  # fmt: skip
            until((munge / "socket").exists, "munged has no socket")
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            until(lambda: self.states() == dict.fromkeys(NODES, "idle"), "the nodes are not idle", explain=self._logs)
            stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def states(self) -> dict[str, str]:
        """Node -> state; empty while nobody answers."""
        done = subprocess.run(
            ["sinfo", "--Node", "--noheader", "--partition=both", "--format=%N %T"], env={**os.environ, **self.env}, text=True,
            capture_output=True, timeout=60,
        )  # fmt: skip
        return dict(line.split() for line in done.stdout.splitlines())

    def jobs(self) -> list[str]:
        """'12_3 RUNNING node1' of every job that has not ended."""
        return self("squeue", "--noheader", "--array", "--format=%i %T %N").splitlines()

    def mend(self) -> None:
        """End all jobs, and have both nodes idle, whatever a test has done to them."""
        self("scancel", "--user=root")
        until(lambda: not self.jobs(), "jobs do not end", patience_s=90)
        for node in NODES:
            if node not in self.daemons:
                self.start_node(node)
        until(self._resumed, "the nodes are not idle", patience_s=90, explain=lambda: f"{self.states()}\n{self._logs()}")

    def _resumed(self) -> bool:
        states = self.states()
        for node, state in states.items():
            if state.startswith(("down", "drain")):
                resume = ("scontrol", "update", f"nodename={node}", "state=resume")  # fails if the node has come back by itself
                subprocess.run(resume, env={**os.environ, **self.env}, capture_output=True, timeout=60)
        return states == dict.fromkeys(NODES, "idle")

    def start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.configuration))

    def start_node(self, node: str) -> None:
        own = self.folder / node
        (own / "leases").mkdir(parents=True, exist_ok=True)
        binds = f"mount --bind {own}/leases {self.leases} && mount --bind {self.folder}/hosts /etc/hosts"
        slurmd = f"exec slurmd -D -N {node} -f {self.configuration}"
        self._start(node, "unshare", "--uts", "--mount", "sh", "-c", f"hostname {node} && {binds} && {slurmd}")

    def stop(self) -> None:
        """End all jobs, and the daemons in the opposite order of their start."""
        if "slurmctld" in self.daemons and self.states():
            self("scancel", "--user=root")
            until(lambda: not self.jobs(), "jobs do not end", patience_s=30)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()

    def _configure(self) -> None:
        for name in ("state", "munge", "leases"):
            (self.folder / name).mkdir(mode=0o755)
        (self.folder / "munge" / "key").write_bytes(secrets.token_bytes(1024))
        (self.folder / "munge" / "key").chmod(0o400)
        port, first, second = free_ports(3)
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0], port=port, node1=first, node2=second, folder=self.folder, most=MOST_JOBS
        )
        self.configuration.write_text(text)
        (self.folder / "hosts").write_text("127.0.0.1 localhost " + " ".join(NODES) + "\n")
        devices = (f"NodeName=node1 Name=gpu Type=h100 File={file}\n" for file in ("/dev/null", "/dev/zero"))  # files that are there
        (self.folder / "gres.conf").write_text("".join(devices))
        (self.folder / "cgroup.conf").write_text("")

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            env = {**os.environ, **self.env}
            whole = ("setpriv", "--pdeathsig=TERM", *command)  # it ends with the tests, however these end
            self.daemons[name] = subprocess.Popen(whole, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    def _logs(self) -> str:
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in sorted(self.folder.glob("*.out")))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def until(true: Callable[[], T], otherwise: str, patience_s: float = 30, explain: Callable[[], str] = str) -> T:
    """What `true` returns once it is something."""
    deadline = time.monotonic() + patience_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"{otherwise}\n{explain()}"
        time.sleep(0.1)
    return found
