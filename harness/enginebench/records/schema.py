"""Records as JSON files: written with the version of the format, read in every older version, refused in a newer one."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from pydantic import BeforeValidator, PlainValidator, TypeAdapter, ValidationError

from enginebench.domain import Load, Search, kind_of, plain_object
from enginebench.errors import UserError

SCHEMA = 2
"""Version of all stored records. Raise it when a field is renamed, moved or read in another way, and add the functions that upgrade
records of the version before. A new field with a default needs no new version."""

CHECKSUM = "checksum"
"""The last field of every record; of records that were stored before it existed, the last is `schema`."""

R = TypeVar("R")
Upgrade: TypeAlias = Callable[[dict[str, Any], Path], dict[str, Any]]
"""(content, file) -> content as in the next version, but with the `schema` it was stored with. May read other files of the run."""

_NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]*(?:null[\s\d.,eE+-]*)*\]")
"""A list of numbers (or nulls) over several lines. JSON strings hold no line break, so this never matches inside one."""


def dump(record: object) -> str:
    """A record as JSON of version SCHEMA that people can read: one field per line, but a list of numbers on one line. Its last field is
    the checksum of all others.
    """
    data = json.loads(_encodable(json.dumps({**plain_object(record), "schema": SCHEMA}, ensure_ascii=False, allow_nan=False)))
    text = json.dumps({**data, CHECKSUM: _checksum(data)}, indent=1, ensure_ascii=False)
    return _NUMBERS.sub(lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text) + "\n"


def _checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of the data as JSON without spaces: a file that was indented anew keeps its checksum."""
    return hashlib.sha256(json.dumps(data, separators=(",", ":")).encode()).hexdigest()


def _proven(data: dict[str, Any]) -> dict[str, Any]:
    """The data without its checksum; ValueError where it does not fit. Records of before have none: their last field is `schema`."""
    expected = data.pop(CHECKSUM, None)
    if (expected is None and next(reversed(data)) == "schema") or expected == _checksum(data):
        return data
    raise ValueError("it is not as it was stored: its checksum does not fit")


def _encodable(text: str) -> str:
    """The text with question marks for halves of a character (lone surrogates), which a server may return as an escape in JSON."""
    return text.encode(errors="replace").decode()


def load(file: Path, kind: type[R], upgrades: Mapping[int, Upgrade]) -> R:
    """Read a record. upgrades: version -> what makes the next version of it. UserError if it is damaged or newer than SCHEMA."""
    return parse(read(file), file, kind, upgrades)


def read(file: Path) -> bytes:
    """The content of a record's file. UserError if it cannot be read."""
    if file.exists() and not file.is_file():  # reading a pipe would wait for ever
        raise UserError("cannot be read: it is not a file", file=file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None


def parse(content: bytes, file: Path, kind: type[R], upgrades: Mapping[int, Upgrade]) -> R:
    """The record that `load` returns, of the content that was read."""
    try:
        data, version = _decoded(content, file)
        if b"\\ud" in content.lower():
            data = json.loads(_encodable(json.dumps(data, ensure_ascii=False)))
        for old in range(version, SCHEMA):
            data = upgrades[old](data, file)
        return cast("R", _adapter(kind).validate_python(data))  # type: ignore[arg-type]  # mypy: type[R] is Hashable
    except RecursionError:
        raise UserError("cannot be read: it is nested too deeply", file=file) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"cannot be read: {first['msg'][:1].lower()}{first['msg'][1:]}", file=file, key=place or None) from None
    except (ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else (str(error).splitlines() or ["?"])[0]
        raise UserError(f"cannot be read: {reason}", file=file) from None


def _decoded(content: bytes, file: Path) -> tuple[Any, int]:
    """The data without its checksum, and the version. ValueError if it is damaged."""
    import orjson

    try:  # three times as fast, but it refuses or rounds some of what Python's own module reads
        data = orjson.loads(content)
        version = _version(data, file)
        return _proven(data), version
    except (ValueError, LookupError, TypeError, AttributeError):
        data = json.loads(content.decode())
        version = _version(data, file)
        return _proven(data), version


def _version(data: Any, file: Path) -> int:
    version = data.get("schema") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError("it has no schema version, a whole number of 1 or more")
    if version > SCHEMA:
        raise UserError(f"has schema {version}, this enginebench reads up to {SCHEMA}", file=file, advice="upgrade enginebench to read it")
    return version


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The reader of a kind of record; making one takes longer than reading fifty records."""
    return TypeAdapter(kind)


def read_load(data: Any) -> Load:
    """The load with these fields: flat JSON with those of all kinds, of which one kind is chosen. ValueError for anything else."""
    if not isinstance(data, Mapping):
        raise ValueError("a load is a JSON object")
    read: Load = _adapter(kind_of(data)).validate_python(data)
    return read


def _with_base(data: Any) -> Any:
    """The data of a search with its load read."""
    return {**data, "base": read_load(data.get("base"))} if isinstance(data, Mapping) else data


StoredLoad: TypeAlias = Annotated[Load, PlainValidator(read_load)]
"""Type of a field of a record that holds a load."""
StoredSearch: TypeAlias = Annotated[Search, BeforeValidator(_with_base)]
"""The same for a search."""
