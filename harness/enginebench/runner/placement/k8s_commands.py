"""`kubectl` as functions, with the user's own configuration. Every error of its becomes one sentence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enginebench.errors import UserError
from enginebench.runner.placement.unit_files import from_tar

PATIENCE_S = 120.0
RUN, UNIT = "enginebench/run", "enginebench/unit"
"""Labels of everything that belongs to a run, and to one of its units."""


class KubectlError(UserError):
    """A call of kubectl failed."""


@dataclass(frozen=True)
class Kubectl:
    """A namespace of a cluster."""

    namespace: str = ""
    """'': that of the context."""
    context: str = ""
    """'': the current one."""

    def call(self, *argv: str, stdin: bytes = b"") -> bytes:
        """Its output. KubectlError with the last line of its errors."""
        where = [*(("--namespace", self.namespace) if self.namespace else ()), *(("--context", self.context) if self.context else ())]
        try:
            done = subprocess.run(("kubectl", *where, *argv), input=stdin, capture_output=True, timeout=PATIENCE_S, check=False)
        except FileNotFoundError:
            advice = "install it, and check it with: kubectl auth can-i create jobs"
            raise UserError("--on k8s needs kubectl, which is not on this machine", advice=advice) from None
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {argv[0]} gave no answer within {PATIENCE_S:g} s") from None
        if done.returncode:
            lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise KubectlError(f"kubectl {argv[0]}: {lines[-1] if lines else 'it failed without a word'}")
        return done.stdout

    def objects(self, kind: str, run: str) -> Sequence[Mapping[str, Any]]:
        """The objects of a run of one kind: 'pods', 'jobs', 'configmaps'."""
        items: list[Mapping[str, Any]] = json.loads(self.call("get", kind, f"--selector={RUN}={run}", "--output=json"))["items"]
        return items

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        items: list[Mapping[str, Any]] = json.loads(self.call("get", "nodes", "--output=json"))["items"]
        return items

    def create(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Create them; what is there already stays as it is."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.call("apply", "--filename=-", stdin=json.dumps(whole).encode())

    def delete(self, names: Iterable[str]) -> None:
        """Delete the job and the ConfigMap of each name, and the job's pods."""
        if each := sorted(set(names)):
            kinds = [f"{kind}/{name}" for name in each for kind in ("job", "configmap")]
            self.call("delete", "--ignore-not-found", "--wait=false", *kinds)

    def files(self, pod: str, folder: str, known: Mapping[str, Sequence[int]]) -> dict[str, bytes]:
        """The files of a unit's folder that are new. known: what `unit_files` has said before of those that were read."""
        command = ("python3", "-m", "enginebench.runner.placement.unit_files", folder, "--known")
        return from_tar(self.call("exec", "--stdin", pod, "--container=client", "--", *command, stdin=json.dumps(known).encode()))

    def touch(self, pod: str, file: str) -> None:
        self.call("exec", pod, "--container=client", "--", "touch", file)

    def last_words(self, pod: str) -> str:
        """The last line of the client's output."""
        try:
            lines = self.call("logs", pod, "--container=client", "--tail=5").decode(errors="replace").splitlines()
        except KubectlError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
