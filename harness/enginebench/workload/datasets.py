"""Data sets: recorded prompts and, where they are recorded, the answers.

    sharegpt:FILE                              a JSON list of records
    jsonl:FILE[#COLUMN]                        one JSON object per line
    hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]      a Hugging Face data set, through the optional package `datasets`

SPLIT is 'train' by default, and may be a slice: 'train[:1000]'.

A record is a conversation under `conversations`, `conversation` or `messages` (turns with from/value or role/content), or a prompt
under the named column, by default the first that exists of `prompt`, `question`, `instruction`, `input`, `text`. A list of strings is
the user's turns. The length of the answer is `output_tokens`, or that of the text under `completion`, `response`, `answer` or `output`.
A content may be a list of parts, of which the text counts. What is left out is counted.

A line of an OpenAI batch file (`custom_id` and `body`) is one request: its messages, or its prompt, with tools and form of the answer. It
is sent as it is where the route takes messages; its answer has at most `max_tokens`. The tools of other records are sent as well. Does not
know tokenizers or loads.
"""

import importlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from enginebench.errors import UserError, did_you_mean
from enginebench.workload.files import find, modified, opened

CHATS = ("conversations", "conversation", "messages")
COLUMNS = ("prompt", "question", "instruction", "input", "text")
ANSWERS = ("completion", "response", "answer", "output")
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_USERS, _SYSTEMS = frozenset({"human", "user", "prompter"}), frozenset({"system", "developer"})
_TOOLS = frozenset({"tool", "function", "observation", "function_response", "tool_response", "ipython"})
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Turn:
    text: str
    answer: str | None = None
    """None: not recorded."""
    answer_tokens: int | None = None
    """Length of the answer, if the record states it in tokens."""
    system: str | None = None
    """The system turn before it."""
    messages: str = ""
    """JSON of all messages of a request that is sent as it is, `text` being all their text; empty: a turn of a conversation."""
    form: str = ""
    """JSON of tools, tool_choice and response_format, in OpenAI's notation; empty: none."""


Record: TypeAlias = tuple[Turn, ...]


class Records(tuple[Record, ...]):  # noqa: SLOT001  # it has an attribute of its own
    """The records of a data set."""

    left_out: Mapping[str, int]
    """What of the data set is in none of them: 'records without a prompt' and the like -> how many."""


@dataclass(frozen=True)
class Reference:
    kind: str
    where: str
    """The file, or ORG/NAME on the hub."""
    column: str | None = None
    split: str = "train"
    config: str | None = None
    """Subset on the hub; None: the only one."""


def is_data_set(prompts: str) -> bool:
    return prompts not in ("random", "text")


def parse_reference(prompts: str) -> Reference:
    """The data set that a load's `prompts` names. UserError if it names none."""
    kind, _, rest = prompts.partition(":")
    if kind not in _SPELLINGS:
        advice = f"{did_you_mean(kind, ('random', 'text', *_SPELLINGS))}; a data set is {', '.join(_SPELLINGS.values())}"
        raise UserError(f"unknown prompt source '{prompts}'", key="prompts", advice=advice)
    found = _PATTERNS[kind].fullmatch(rest)
    if found is None:
        raise UserError(f"invalid data set '{prompts}'", key="prompts", advice=f"write {_SPELLINGS[kind]}")
    return Reference(kind, **{name: value for name, value in found.groupdict().items() if value})


_SPELLINGS = {"sharegpt": "sharegpt:FILE", "jsonl": "jsonl:FILE[#COLUMN]", "hf": "hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]"}
_PATTERNS = {
    "sharegpt": re.compile(r"(?P<where>.+)"),
    "jsonl": re.compile(r"(?P<where>[^#]+)(#(?P<column>.+))?"),
    "hf": re.compile(r"(?P<where>[\w.-]+/[\w.-]+)(:(?P<config>[^/#]+))?(/(?P<split>[^/#]+))?(#(?P<column>.+))?"),
}


def read_records(prompts: str, base: Path) -> Records:
    """The records of a data set, cached until its file changes. UserError with file and line for an invalid data set."""
    reference = parse_reference(prompts)
    if reference.kind == "hf":
        return _read_hub(reference)
    file = find(reference.where, base, "prompts")
    return _read_file(reference.kind, file, reference.column, modified(file))


def known_records(prompts: str, base: Path) -> int | None:
    """The number of records of a data set; None for one on the hub, which is not asked. UserError if it cannot be read."""
    if parse_reference(prompts).kind != "hf":
        return len(read_records(prompts, base))
    _need_package(prompts)
    return None


def _need_package(prompts: str) -> None:
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"'{prompts}' needs the package datasets", key="prompts", advice="pip install datasets")


@lru_cache(maxsize=4)
def _read_file(kind: str, file: Path, column: str | None, _modified: int) -> Records:
    with opened(file) as lines:
        text = lines.read()
    if kind == "sharegpt":
        return _records(_json_list(text, file), file, column, "a record is {conversations: [{from: human, value: ...}, ...]}")
    return _records(_json_lines(text, file), file, column)


@lru_cache(maxsize=4)
def _read_hub(reference: Reference) -> Records:
    name = Path(reference.where)
    _need_package(f"hf:{name}")
    _ask_hub(reference.where)
    needed = {*((reference.column,) if reference.column else (*CHATS, *COLUMNS)), *ANSWERS, "output_tokens"}
    try:
        rows = importlib.import_module("datasets").load_dataset(reference.where, reference.config, split=reference.split)
        columns = rows.column_names
        rows = rows.select_columns(
            [column for column in columns if column in needed]
        )  # other columns may be images, which take time to decode
        numbered = list(enumerate(rows, 1))
    except Exception as error:  # noqa: BLE001  # the package does not wrap the exceptions of its back ends
        advice = f"write {_SPELLINGS['hf']} with a column and split that it has, export HF_TOKEN if it is gated, or {_DOWNLOADED}"
        raise UserError(f"the data set {name} cannot be read ({_reason(error)})", key="prompts", advice=advice) from None
    return _records(numbered, name, reference.column, columns=sorted(columns))


_DOWNLOADED = "download it once and name the file: 'jsonl:FILE#COLUMN'"
_PATIENCE_S = 10.0


def _ask_hub(where: str) -> None:
    """UserError if the hub has no such data set or is unreachable; `datasets` would retry for half a minute before it says so."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    if Path(where).exists():
        advice = "start bench in another folder, or name a file in it: 'jsonl:FILE#COLUMN'"
        raise UserError(f"the folder {where} exists here, and `datasets` would read it instead of the hub", key="prompts", advice=advice)
    try:
        HfApi().dataset_info(where, timeout=_PATIENCE_S)
    except OfflineModeIsEnabled:
        return  # `datasets` reads its cache
    except RepositoryNotFoundError:
        advice = "check its name; if it is private or gated, accept its licence on the hub and export HF_TOKEN"
        raise UserError(f"the hub has no data set {where}, or does not show it", key="prompts", advice=advice) from None
    except Exception as error:  # noqa: BLE001  # versions of huggingface_hub use different HTTP libraries, with different errors
        advice = f"is the hub reachable? If it was read here before, export HF_HUB_OFFLINE=1; else {_DOWNLOADED}"
        raise UserError(f"the hub cannot be asked for the data set {where} ({_reason(error)})", key="prompts", advice=advice) from None


def _reason(error: Exception) -> str:
    """The message of a library's error as one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."


_RECORD = 'write an object with its prompt as text, such as {"prompt": "..."}'


def _json_list(text: str, file: Path) -> Iterator[tuple[int, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"invalid JSON: {error}", file=file, advice="for one JSON object per line write 'jsonl:FILE'") from None
    if not isinstance(rows, list):
        advice = "put the records into [...], or write one on each line of a 'jsonl:FILE'"
        raise UserError("a ShareGPT file is a JSON list of records", file=file, advice=advice)
    return ((0, row) for row in rows)


def _json_lines(text: str, file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would also split at characters that are valid within JSON
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"invalid JSON: {error}", file=file, line=number, advice=_RECORD) from None


def _records(
    rows: Iterable[tuple[int, Any]], file: Path, column: str | None, shape: str | None = None, columns: Sequence[str] = ()
) -> Records:
    """The records of numbered rows. shape: the expected form, for files without columns. columns: default those of the first row."""
    found: list[Record] = []
    left_out: Counter[str] = Counter()
    for number, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"a record is a JSON object, not {json.dumps(row)[:40]}", file=file, line=number or None, advice=_RECORD)
        columns = columns or sorted(map(str, row))
        record = tuple(_turns(row, column, left_out))
        left_out["records without a prompt"] += not record
        left_out["records with tools"] += bool(
            record and (row.get("tools") or row.get("functions")) and not any(turn.form for turn in record)
        )
        if record:
            found.append(record)
    if not found:
        others = [name for name in columns if name != column]
        advice = shape or (f"name the column with '#COLUMN'; there are: {', '.join(others)}" if others else _RECORD)
        what = "text" if column in columns else "a prompt"
        raise UserError(f"no record holds {what} under {column or ', '.join((*CHATS, *COLUMNS))}", file=file, advice=advice)
    records = Records(found)
    records.left_out = {kind: count for kind, count in left_out.items() if count}
    return records


def _turns(row: Mapping[str, Any], column: str | None, left_out: Counter[str]) -> Iterator[Turn]:
    if column is None and isinstance(body := row.get("body"), dict) and "custom_id" in row:
        yield from _batched(body, left_out)
        return
    for turn in _told(row, column, left_out):
        yield replace(turn, form=_form(row)) if row.get("tools") else turn


def _batched(body: Mapping[str, Any], left_out: Counter[str]) -> Iterator[Turn]:
    """The request of one line of a batch: of the chat route, the completions route or the responses route."""
    tokens = next((body[name] for name in _LIMITS if type(body.get(name)) is int and body[name] > 0), None)
    said = body.get("messages") if body.get("messages") is not None else body.get("input")
    if isinstance(said, list) and said and all(isinstance(each, dict) for each in said):
        texts = [_text(message.get("content"), left_out) for message in said]
        messages = [message | {"content": _parts(message.get("content"))} for message in said]
        yield Turn("\n\n".join(filter(None, texts)), None, tokens, messages=json.dumps(messages), form=_form(body))
    elif isinstance(text := said if isinstance(said, str) else body.get("prompt"), str) and text:
        yield Turn(_clean(text), None, tokens, form=_form(body))


def _parts(content: Any) -> Any:
    """A content of the responses route in the notation of the chat route; others as they are."""
    if not isinstance(content, list):
        return content
    found: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text"):
            found.append({"type": "text", "text": part.get("text", "")})
        elif kind == "input_image" and isinstance(part.get("image_url"), str):
            found.append({"type": "image_url", "image_url": {"url": part["image_url"]}})
        else:
            found.append(part)
    return found


def _form(row: Mapping[str, Any]) -> str:
    tools, kind = row.get("tools"), row.get("response_format")
    found: dict[str, Any] = {}
    if isinstance(tools, list) and all(isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in tools):
        choice = row.get("tool_choice")
        found = {"tools": tools, "tool_choice": choice if choice in ("auto", "none", "required") else "auto"}
    found |= {"response_format": kind} if isinstance(kind, dict) else {}
    return json.dumps(found) if found else ""


def _told(row: Mapping[str, Any], column: str | None, left_out: Counter[str]) -> Iterator[Turn]:
    names = (column,) if column else (*CHATS, *COLUMNS)
    found = next((row[name] for name in names if row.get(name)), None)
    if isinstance(found, str):
        answer = next((row[name] for name in ANSWERS if isinstance(row.get(name), str) and name != column), None)
        tokens = row.get("output_tokens")
        yield Turn(_clean(found), answer and _clean(answer), tokens if type(tokens) is int and tokens > 0 else None)
    elif isinstance(found, list) and all(isinstance(part, str) for part in found):
        yield from (Turn(_clean(part)) for part in found if part)
    elif isinstance(found, list):
        yield from _chat(found, left_out)


def _chat(messages: Iterable[Any], left_out: Counter[str]) -> Iterator[Turn]:
    """The user's turns of a conversation, each with the answer that follows."""
    question: str | None = None
    system: str | None = None
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        role = str(fields.get("from", fields.get("role", ""))).lower()
        left_out["tool calls"] += bool(fields.get("tool_calls"))
        text = _text(fields.get("value", fields.get("content")), left_out)
        if not text:
            continue
        if role in _SYSTEMS:
            system = f"{system}\n{text}" if system else text
            continue
        if role in _TOOLS:
            left_out["tool results"] += 1
            continue
        if question is not None:
            yield Turn(question, None if role in _USERS else text, system=system)
            system = None
        question = text if role in _USERS else None
    if question is not None:
        yield Turn(question, system=system)


def _text(content: Any, left_out: Counter[str]) -> str:
    """The text of a content: a string, or a list of parts, of which some may be images or sound."""
    if isinstance(content, str):
        return _clean(content)
    parts = content if isinstance(content, list) else []
    texts = [part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None for part in parts]
    left_out["parts that are not text"] += sum(not isinstance(text, str) for text in texts)
    return _clean("".join(text for text in texts if isinstance(text, str)))


def _clean(text: str) -> str:
    """Replaces lone surrogates, which JSON can contain and servers refuse."""
    return _LONE_SURROGATE.sub("\ufffd", text)
