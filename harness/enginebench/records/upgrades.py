"""How records of older versions become records of today's version, one version at a time.

Plain JSON data in and out. To add version N+1: write a function for each kind of record that changed, and keep a real run of version N+1
in tests/kept/.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.records.schema import Upgrade

Data = dict[str, Any]


def run_1_to_2(old: Data, file: Path) -> Data:
    """Version 1 stored searches under `scenario`, each with its probes but without the load at its first level.
    That load is taken from a stored probe. A search without a stored probe is dropped: it starts anew when the run is resumed."""
    searches: Data = {}
    probes: Data = {}
    for search in old["scenario"].get("searches") or ():
        its, level = search["probes"], {search["over"]: search["start"]}
        first = next((cell for cell, at in its.items() if at == search["start"]), None)
        stored = [cell for cell in its if (file.parent / "cells" / f"{cell}.json").is_file()]
        if first is not None and stored:
            load = json.loads((file.parent / "cells" / f"{stored[0]}.json").read_text(encoding="utf-8"))["load"]
            bounds = {name: search[name] for name in ("over", "start", "stop", "precision")}
            searches[first] = bounds | {"base": load | level, "follows": search.get("follows", ())}
            probes[first] = its
    scenario = {key: value for key, value in old["scenario"].items() if key != "searches"}
    return {**old, "scenario": scenario, "searches": searches, "probes": probes}


def launch_1_to_2(old: Data, _file: Path) -> Data:
    """Version 1 was flat, and did not store files and model name of the command."""
    new = _without(old, "argv", "env", "notes", "members", "variant", "version", "resolved", "differences", *_STARTUP)
    command = {"served_name": "", **_only(old, "argv", "env", "notes", "members")} if old.get("argv") else None
    install = {"variant": old["variant"], "version": old["version"] or ""} if old.get("variant") else None
    startup = {"command": command, "install": install, **_only(old, *_STARTUP)}
    return {**new, "startup": startup, "configuration": _only(old, "resolved", "differences")}


def cell_1_to_2(old: Data, _file: Path) -> Data:
    """Version 1 was flat. Its `nonce` is the session id, its `client` the client's health."""
    prompts = {"form": "prompt_form", "exact": "exact_prompts", "session_id": "nonce"}
    client = {"health": "client", "limit": "client_limit"}
    counters = {"totals": "counters", "series": "series", "token_check": "token_check"}
    new = _without(old, *prompts.values(), *client.values(), *counters.values(), *_TRAITS, *_DELIVERY)
    groups = {"prompts": prompts, "client": client, "counters": counters}
    new |= {group: {name: old[was] for name, was in names.items() if was in old} for group, names in groups.items()}
    return new | {"traits": _only(old, *_TRAITS), "delivery": _only(old, *_DELIVERY)}


RUN: Mapping[int, Upgrade] = {1: run_1_to_2}
LAUNCH: Mapping[int, Upgrade] = {1: launch_1_to_2}
CELL: Mapping[int, Upgrade] = {1: cell_1_to_2}

_STARTUP = ("packages", "inherited", "container", "identity", "start_s", "stop_s")
_TRAITS = ("length_control", "random_weights", "dense", "forced_routing", "gpus")
_DELIVERY = ("window_ns", "stopped", "unsent", "saturated")


def _only(data: Data, *names: str) -> Data:
    """These fields, as far as they are there: early records of a version lack those with a default."""
    return {name: data[name] for name in names if name in data}


def _without(data: Data, *names: str) -> Data:
    return {name: value for name, value in data.items() if name not in names}
