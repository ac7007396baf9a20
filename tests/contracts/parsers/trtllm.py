"""Holds what is written for TensorRT-LLM against the pinned table of its flags and settings (tables/trtllm.json).

The package cannot be installed where there is no NVIDIA GPU, so nothing is asked of it: the table names its source. Also refused: a key
that is both a flag and in the settings file, because releases differ in which wins. Knows nothing of what a value does.
"""

import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

REQUIREMENTS: list[str] = []
NO_DEPS: list[str] = []
TABLE = json.loads((Path(__file__).resolve().parent.parent / "tables" / "trtllm.json").read_text(encoding="utf-8"))

KINDS: dict[str, Callable[[object], bool]] = {
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "fraction": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1,
    "bool": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str) and value != "",
    "list": lambda value: isinstance(value, list),
    "mapping": lambda value: isinstance(value, dict),
}
PAIRS = {
    "tensor_parallel_size": ("--tensor_parallel_size", "--tp_size"),
    "pipeline_parallel_size": ("--pipeline_parallel_size", "--pp_size"),
    "moe_expert_parallel_size": ("--moe_expert_parallel_size", "--ep_size"),
    "max_batch_size": ("--max_batch_size",),
    "max_num_tokens": ("--max_num_tokens",),
    "max_seq_len": ("--max_seq_len",),
    "enable_chunked_prefill": ("--enable_chunked_prefill",),
}
"""Settings and the flags that say the same."""
MPIRUN = {"--allow-run-as-root": "flag", "-np": "ranks", "--host": "hosts", "--bind-to": "text", "-x": "env"}
"""The options of mpirun that are used (man page of OpenMPI 4.1 and 5.0)."""


def complaints(request: dict) -> Iterator[str]:
    """Everything that TensorRT-LLM would refuse, or might read in two ways."""
    files = {f"/site/{name}": json.loads(text) for name, text in request["files"].items()}
    program, *argv = yield from without_mpirun(request["argv"], request.get("env", {}))
    flags: dict[str, str] = {}
    file: str | None
    if program.endswith("python"):  # the batch worker: a model and its settings
        file = argv[2]
    else:
        command, _model, *words = argv
        flags = dict(read_flags(words, TABLE["commands"][command]))
        yield from (problem for flag, value in flags.items() if (problem := wrong_flag(flag, value, TABLE["commands"][command])))
        file = flags.get("--extra_llm_api_options") or flags.get("--config")
    if file not in files:
        yield f"the settings file {file} is not written"
        return
    yield from wrong_settings(files[file], TABLE["settings"], "")
    for name, spellings in PAIRS.items():
        if name in files[file] and flags.keys() & set(spellings):
            yield f"{name} is both a flag and in the settings file"


def without_mpirun(argv: list[str], env: Mapping[str, str]) -> Generator[str, None, list[str]]:
    """The command that each rank runs; what is wrong with that of mpirun before it, whose ranks need as many places."""
    if argv[0] != "mpirun":
        return argv
    words, ranks, places = iter(argv[1:]), 0, 0
    for word in words:
        if not word.startswith("-"):
            break
        kind = MPIRUN.get(word)
        value = next(words) if kind not in ("flag", None) else ""
        if kind is None:
            yield f"mpirun: no such option: {word}"
        elif kind == "env" and value not in env:
            yield f"mpirun: {value} is not set"
        elif kind == "ranks":
            ranks = int(value)
        elif kind == "hosts":
            places = sum(int(host.rpartition(":")[2]) for host in value.split(","))
    if Path(word).name != "trtllm-llmapi-launch":
        yield f"mpirun starts {word}"
    if ranks != places:
        yield f"mpirun: {ranks} ranks on {places} places"
    return list(words)


def read_flags(words: list[str], known: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Flags and their values; a flag that is not known takes one."""
    rest = iter(words)
    for flag in rest:
        yield flag, "" if known.get(flag) == "flag" else next(rest, "")


def wrong_flag(flag: str, value: str, known: Mapping[str, object]) -> str | None:
    """What click would say."""
    kind = known.get(flag)
    if kind is None:
        return f"no such option: {flag}"
    if isinstance(kind, list):
        return None if value in kind else f"{flag} is one of {', '.join(kind)}, not {value}"
    fits = value.isdecimal() if kind == "count" else kind == "flag" or value != ""
    return None if fits else f"{flag} {value!r} is no {kind}"


def wrong_settings(given: Mapping[str, object], known: Mapping[str, object], where: str) -> Iterator[str]:
    """What pydantic would say of the settings and everything below them; it forbids keys that it does not know."""
    for name, value in given.items():
        kind, path = known.get(name), f"{where}{name}"
        if kind is None:
            yield f"no such setting: {path}"
        elif value is None and name in TABLE["nullable"]:
            continue
        elif isinstance(kind, dict):
            if not isinstance(value, dict):
                yield f"{path} is no mapping"
                continue
            yield from wrong_settings(value, kind, f"{path}.")
        elif isinstance(kind, list):
            if value not in kind:
                yield f"{path} is one of {', '.join(kind)}, not {value}"
        elif not KINDS[kind](value):
            yield f"{path}: {value!r} is no {kind}"
    decoding = given.get("speculative_config") if not where else None
    if isinstance(decoding, dict) and decoding.get("decoding_type") not in TABLE["decoding_types"]:
        yield f"speculative_config.decoding_type is one of {', '.join(TABLE['decoding_types'])}"
    if isinstance(decoding, dict) and (keys := TABLE["decoding_keys"].get(decoding.get("decoding_type"))) is not None:
        yield from (
            f"speculative_config has no {key} with {decoding['decoding_type']}" for key in decoding.keys() - {"decoding_type", *keys}
        )


def main() -> int:
    print(json.dumps({"engine": "trtllm", "version": f"table of {TABLE['version']}"}))
    for line in sys.stdin:
        request = json.loads(line)
        found = list(complaints(request))
        answer = {"name": request["name"], "accepted": not found}
        print(json.dumps(answer | ({"error": "; ".join(found)} if found else {})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
