"""Data sets: what people have said, and where it is recorded, what was answered.

    sharegpt:FILE                              a JSON list of records
    jsonl:FILE[#COLUMN]                        one JSON object per line
    hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]      a Hugging Face data set, through the optional package `datasets`

SPLIT is 'train' unless named, and may be cut: 'train[:1000]'.

A record is a conversation under `conversations`, `conversation` or `messages` (turns with from/value or role/content), or a prompt
under the column named, else under the first there is of `prompt`, `question`, `instruction`, `input`, `text`. A list of strings is
the user's turns. `output_tokens`, or the text under `completion`, `response`, `answer` or `output`, says how long the answer was.
Records without a prompt are left out, and so are system turns. Knows no tokenizer and no load.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from enginebench.errors import UserError, did_you_mean
from enginebench.workload.files import find, modified

CHATS = ("conversations", "conversation", "messages")
COLUMNS = ("prompt", "question", "instruction", "input", "text")
ANSWERS = ("completion", "response", "answer", "output")
_USERS = frozenset({"human", "user", "prompter"})
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user said. answer None: none is recorded. answer_tokens: its length, where the record says it in tokens."""

    text: str
    answer: str | None = None
    answer_tokens: int | None = None


Record: TypeAlias = tuple[Turn, ...]


@dataclass(frozen=True)
class Reference:
    """A data set as a load names it. where: the file, or ORG/NAME of the hub. config: which of the hub's subsets; None: its only one."""

    kind: str
    where: str
    column: str | None = None
    split: str = "train"
    config: str | None = None


def is_data_set(prompts: str) -> bool:
    """Whether a load's prompts come from a data set."""
    return prompts not in ("random", "text")


def parse_reference(prompts: str) -> Reference:
    """What a load's `prompts` names. UserError if it names no data set."""
    kind, _, rest = prompts.partition(":")
    if kind not in _SPELLINGS:
        advice = f"{did_you_mean(kind, ('random', 'text', *_SPELLINGS))}; a data set is {', '.join(_SPELLINGS.values())}"
        raise UserError(f"'{prompts}' are no prompts we know", key="prompts", advice=advice)
    found = _PATTERNS[kind].fullmatch(rest)
    if found is None:
        raise UserError(f"'{prompts}' names no data set", key="prompts", advice=f"write {_SPELLINGS[kind]}")
    return Reference(kind, **{name: value for name, value in found.groupdict().items() if value})


_SPELLINGS = {"sharegpt": "sharegpt:FILE", "jsonl": "jsonl:FILE[#COLUMN]", "hf": "hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]"}
_PATTERNS = {
    "sharegpt": re.compile(r"(?P<where>.+)"),
    "jsonl": re.compile(r"(?P<where>[^#]+)(#(?P<column>.+))?"),
    "hf": re.compile(r"(?P<where>[\w.-]+/[\w.-]+)(:(?P<config>[^/#]+))?(/(?P<split>[^/#]+))?(#(?P<column>.+))?"),
}


def read_records(prompts: str, base: Path) -> tuple[Record, ...]:
    """The records of a data set, kept until its file changes. UserError, with file and line, for what is none."""
    reference = parse_reference(prompts)
    if reference.kind == "hf":
        return _read_hub(reference)
    file = find(reference.where, base, "prompts")
    return _read_file(reference.kind, file, reference.column, modified(file))


def known_records(prompts: str, base: Path) -> int | None:
    """How many records a data set has; None where only the hub, which is not asked, could tell. UserError if it cannot be had."""
    if parse_reference(prompts).kind != "hf":
        return len(read_records(prompts, base))
    _need_package(prompts)
    return None


def _need_package(prompts: str) -> None:
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"'{prompts}' needs the package datasets", key="prompts", advice="pip install datasets")


@lru_cache(maxsize=4)
def _read_file(kind: str, file: Path, column: str | None, _modified: int) -> tuple[Record, ...]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"this is no UTF-8: {error}", file=file, advice="save it as UTF-8") from None
    if kind == "sharegpt":
        return _records(_json_list(text, file), file, column, "a record is {conversations: [{from: human, value: ...}, ...]}")
    return _records(_json_lines(text, file), file, column)


@lru_cache(maxsize=4)
def _read_hub(reference: Reference) -> tuple[Record, ...]:
    name = Path(reference.where)
    _need_package(f"hf:{name}")
    _ask_hub(reference.where)
    needed = {*((reference.column,) if reference.column else (*CHATS, *COLUMNS)), *ANSWERS, "output_tokens"}
    try:
        rows = importlib.import_module("datasets").load_dataset(reference.where, reference.config, split=reference.split)
        columns = rows.column_names
        rows = rows.select_columns([column for column in columns if column in needed])  # what is left may be pictures to decode
        numbered = list(enumerate(rows, 1))
    except Exception as error:  # noqa: BLE001  # the package lets through what its many back ends raise
        advice = f"write {_SPELLINGS['hf']} with what it has, export HF_TOKEN where it is gated, or {_DOWNLOADED}"
        raise UserError(f"the data set {name} cannot be read ({_reason(error)})", key="prompts", advice=advice) from None
    return _records(numbered, name, reference.column, columns=sorted(columns))


_DOWNLOADED = "download it once and name the file: 'jsonl:FILE#COLUMN'"
_PATIENCE_S = 10.0


def _ask_hub(where: str) -> None:
    """UserError where the hub has no such data set or is out of reach, which `datasets` finds out only after half a minute of retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    if Path(where).exists():
        advice = "start bench in another folder, or name a file of it: 'jsonl:FILE#COLUMN'"
        raise UserError(f"there is a folder {where} here, which `datasets` would read instead of the hub's", key="prompts", advice=advice)
    try:
        HfApi().dataset_info(where, timeout=_PATIENCE_S)
    except OfflineModeIsEnabled:
        return  # what was downloaded before is read
    except RepositoryNotFoundError:
        advice = "look its name up; where it is private or gated, accept its licence on the hub and export HF_TOKEN"
        raise UserError(f"the hub shows no data set {where}", key="prompts", advice=advice) from None
    except Exception as error:  # noqa: BLE001  # the HTTP library below differs between versions of huggingface_hub, and so do its errors
        advice = f"is the hub in reach? If it was read here before, export HF_HUB_OFFLINE=1; else {_DOWNLOADED}"
        raise UserError(f"the hub cannot be asked for the data set {where} ({_reason(error)})", key="prompts", advice=advice) from None


def _reason(error: Exception) -> str:
    """What an error of a library says, as one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."


_RECORD = 'write an object with its prompt as text, such as {"prompt": "..."}'


def _json_list(text: str, file: Path) -> Iterator[tuple[int, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"this is no JSON: {error}", file=file, advice="for one JSON object per line write 'jsonl:FILE'") from None
    if not isinstance(rows, list):
        advice = "put the records into [...], or write one on each line of a 'jsonl:FILE'"
        raise UserError("a ShareGPT file is a JSON list of records", file=file, advice=advice)
    return ((0, row) for row in rows)


def _json_lines(text: str, file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would also split at characters that JSON leaves as they are
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"this is no JSON: {error}", file=file, line=number, advice=_RECORD) from None


def _records(
    rows: Iterable[tuple[int, Any]], file: Path, column: str | None, shape: str | None = None, columns: Sequence[str] = ()
) -> tuple[Record, ...]:
    """The records in rows numbered by line. shape: what a record looks like, where no column can be named. columns: default the first's."""
    found: list[Record] = []
    for number, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"a record is a JSON object, not {json.dumps(row)[:40]}", file=file, line=number or None, advice=_RECORD)
        columns = columns or sorted(map(str, row))
        record = tuple(_turns(row, column))
        if record:
            found.append(record)
    if not found:
        others = [name for name in columns if name != column]
        advice = shape or (f"name the column with '#COLUMN'; there are: {', '.join(others)}" if others else _RECORD)
        what = "text" if column in columns else "a prompt"
        raise UserError(f"no record holds {what} under {column or ', '.join((*CHATS, *COLUMNS))}", file=file, advice=advice)
    return tuple(found)


def _turns(row: Mapping[str, Any], column: str | None) -> Iterator[Turn]:
    """What the user says in one record, turn by turn."""
    names = (column,) if column else (*CHATS, *COLUMNS)
    said = next((row[name] for name in names if row.get(name)), None)
    if isinstance(said, str):
        answer = next((row[name] for name in ANSWERS if isinstance(row.get(name), str) and name != column), None)
        tokens = row.get("output_tokens")
        yield Turn(_clean(said), answer and _clean(answer), tokens if type(tokens) is int and tokens > 0 else None)
    elif isinstance(said, list) and all(isinstance(part, str) for part in said):
        yield from (Turn(_clean(part)) for part in said if part)
    elif isinstance(said, list):
        yield from _chat(said)


def _chat(messages: Iterable[Any]) -> Iterator[Turn]:
    """The user's turns of a conversation, each with the answer that follows it."""
    asked: str | None = None
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        role = str(fields.get("from", fields.get("role", ""))).lower()
        text = fields.get("value", fields.get("content"))
        if not isinstance(text, str) or not text or role == "system":
            continue
        if asked is not None:
            yield Turn(asked, None if role in _USERS else _clean(text))
        asked = _clean(text) if role in _USERS else None
    if asked is not None:
        yield Turn(asked)


def _clean(text: str) -> str:
    """JSON can spell half a character, which no server would take."""
    return _LONE_SURROGATE.sub("\ufffd", text)
