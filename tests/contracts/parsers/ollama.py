"""Holds what is written for Ollama against the pinned table of its environment variables and API fields (tables/ollama.json).

Ollama is configured by environment and over its API and has no parser to ask, nor a package to install: the table names its source.
Knows nothing of what a value does.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS: list[str] = []
NO_DEPS: list[str] = []
TABLE = json.loads((Path(__file__).resolve().parent.parent / "tables" / "ollama.json").read_text(encoding="utf-8"))

TEXTS: dict[str, Callable[[str], bool]] = {
    "uint": str.isdecimal,
    "bool": lambda text: text in ("0", "1"),
    "duration": lambda text: re.fullmatch(r"-?\d+", text) is not None,
    "path": lambda text: text.startswith("/"),
    "host:port": lambda text: re.fullmatch(r"[\w.]+:\d+", text) is not None,
    "string": bool,
}
VALUES: dict[str, Callable[[object], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
}


def complaints(request: dict) -> list[str]:
    """Everything that Ollama would ignore or refuse."""
    found = [text for name, value in request["env"].items() if (text := wrong_variable(name, value))]
    (plan,) = (json.loads(text) for name, text in request["files"].items() if name.endswith(".json"))
    names = [*(model["name"] for model in plan["models"]), plan["ready"]]
    found += [f"'{name}' is no model name" for name in names if not re.fullmatch(TABLE["name"], name)]
    found += [f"/api/generate has no field '{field}'" for field in plan["load"] if field not in TABLE["generate"]]
    for option, value in plan["load"].get("options", {}).items():
        kind = TABLE["options"].get(option)
        if kind is None or not VALUES[kind](value):
            found.append(f"there is no option {option} with the value {value!r}")
    limit = int(request["env"].get("OLLAMA_MAX_LOADED_MODELS", "0"))
    if limit != len(plan["models"]):
        found.append(f"{len(plan['models'])} models are to be loaded and {limit} may be")
    return found


def wrong_variable(name: str, value: str) -> str | None:
    """What is wrong with an environment variable."""
    kind = TABLE["environment"].get(name)
    if kind is None:
        return f"{name} is none of its variables"
    fits = value in kind.split("|") if "|" in kind else TEXTS[kind](value)
    return None if fits else f"{name}={value} is no {kind}"


def main() -> int:
    print(json.dumps({"engine": "ollama", "version": f"table of {TABLE['version']}"}))
    for line in sys.stdin:
        request = json.loads(line)
        found = complaints(request)
        answer = {"accepted": False, "error": "; ".join(found)} if found else {"accepted": True}
        print(json.dumps({"name": request["name"], **answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
