"""Stands in for kubectl and a cluster of one node: objects are files, and each pod's containers really run, in Docker, as a kubelet
runs them: one network, one numbering of processes, volumes that all mount.

`python kubelet.py ARGUMENT...` is called as `kubectl`. KUBELET_FOLDER has the objects; KUBELET_RUN the arguments of `docker run` that give
a container of an empty image a Python. It knows the calls of `k8s_commands` and no others, schedules nothing, and checks no manifest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["KUBELET_FOLDER"])
NODE = "docker-node"


def main(argv: list[str]) -> int:
    words = [word for word in argv if not word.startswith(("--namespace", "--context"))]
    for option in ("--namespace", "--context"):
        if option in argv:
            words.remove(argv[argv.index(option) + 1])
    verb, *rest = words
    return {"get": get, "apply": apply, "delete": delete, "exec": execute, "logs": logs}[verb](rest)


def get(rest: list[str]) -> int:
    kind = rest[0]
    if kind == "nodes":
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"allocatable": {"cpu": "1900m", "memory": "4Gi"}, "conditions": conditions}
        items: list[Any] = [{"metadata": {"name": NODE, "labels": {"pool": "docker"}}, "spec": {}, "status": status}]
    else:
        wanted = next((word.removeprefix("--selector=") for word in rest if word.startswith("--selector=")), "").split("=")
        stored = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("jobs/*.json" if kind == "pods" else f"{kind}/*.json"))]
        stored = [each for each in stored if each["metadata"]["labels"].get(wanted[0]) == wanted[-1]]
        items = [pod(each) for each in stored] if kind == "pods" else [{**each, "status": {}} for each in stored]
    print(json.dumps({"items": items}))
    return 0


def pod(job: dict[str, Any]) -> dict[str, Any]:
    name = job["metadata"]["name"]
    states = {each["name"]: state(f"{name}-{each['name']}") for each in containers(job)}
    about = {"name": f"{name}-pod", "labels": {**job["metadata"]["labels"], "job-name": name}}
    statuses = [{"name": which, "state": its} for which, its in states.items()]
    return {"metadata": about, "spec": {"nodeName": NODE}, "status": {"phase": "Running", "containerStatuses": statuses}}


def state(container: str) -> dict[str, Any]:
    shown = docker("inspect", container)
    if shown.returncode:
        return {"terminated": {"exitCode": 137, "reason": "Error"}}
    its = json.loads(shown.stdout)[0]["State"]
    return {"running": {}} if its["Running"] else {"terminated": {"exitCode": its["ExitCode"], "reason": "Error"}}


def apply(_rest: list[str]) -> int:
    for each in json.loads(sys.stdin.read())["items"]:
        file = FOLDER / f"{each['kind'].lower()}s" / f"{each['metadata']['name']}.json"
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(each))
        if each["kind"] == "Job":
            start(each)
    return 0


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job["spec"]["template"]["spec"]["containers"]
    return found


def start(job: dict[str, Any]) -> None:
    name, first = job["metadata"]["name"], ""
    for each in containers(job):
        joined = [f"--network=container:{first}", f"--pid=container:{first}", f"--ipc=container:{first}"] if first else ["--ipc=shareable"]
        env = [f"--env={var['name']}={var.get('value', NODE)}" for var in each.get("env", ())]
        options = [f"--name={name}-{each['name']}", *joined, *env, *mounts(job, each), *json.loads(os.environ["KUBELET_RUN"])]
        program, *words = each["command"]
        done = docker("run", "--detach", "--init", *options, f"--entrypoint={program}", each["image"], *words)
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        first = first or f"{name}-{each['name']}"


def mounts(job: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    volumes = {each["name"]: each for each in job["spec"]["template"]["spec"]["volumes"]}
    for mount in container["volumeMounts"]:
        folder = FOLDER / "volumes" / job["metadata"]["name"] / mount["name"]
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            config = json.loads((FOLDER / "configmaps" / f"{volume['configMap']['name']}.json").read_text())
            for file, text in config["data"].items():
                (folder / file).write_text(text)
        if volume.get("emptyDir", {}).get("medium") != "Memory":  # those share the first container's /dev/shm
            yield f"--volume={folder}:{mount['mountPath']}"


def delete(rest: list[str]) -> int:
    for word in rest:
        kind, slash, name = word.partition("/")
        if slash:
            file = FOLDER / f"{kind}s" / f"{name}.json"
            if kind == "job" and file.exists():
                docker(
                    "rm", "--force", "--volumes", *(f"{name}-{each['name']}" for each in reversed(containers(json.loads(file.read_text()))))
                )
            file.unlink(missing_ok=True)
    return 0


def execute(rest: list[str]) -> int:
    words, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    (its,) = (word for word in words if not word.startswith("--"))
    flags = ["--interactive"] if "--stdin" in words else []
    return subprocess.run(["docker", "exec", *flags, f"{its.removesuffix('-pod')}-{which(words)}", *command]).returncode


def logs(rest: list[str]) -> int:
    (its,) = (word for word in rest if not word.startswith("--"))
    return subprocess.run(["docker", "logs", "--tail=5", f"{its.removesuffix('-pod')}-{which(rest)}"], stderr=subprocess.STDOUT).returncode


def which(words: list[str]) -> str:
    return next(word.removeprefix("--container=") for word in words if word.startswith("--container="))


def docker(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *words], capture_output=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
