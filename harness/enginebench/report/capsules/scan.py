"""Finds secrets in the files of a run before they are packed.

Every file is searched as it is. JSON is searched once more with its escapes resolved, and of Parquet, which is compressed, every text
column, every column name and the metadata.
"""

from __future__ import annotations

import contextlib
import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from enginebench.errors import UserError
from enginebench.machine.secrets import found_in


def secrets_in(name: str, content: Path | bytes, variables: Mapping[str, str]) -> list[str]:
    """What is secret in a file, as ['logs/1a2b.log:12: the value of HF_TOKEN']; never the secret itself.

    variables: name -> value, as `enginebench.machine.secrets.secret_variables` finds them.
    """
    found: dict[str, str] = {}
    with _data(content) as data:
        for what, at in found_in(data, variables):
            line = data[:at].count(b"\n") + 1
            found.setdefault(what, name if name.endswith(".parquet") else f"{name}:{line}")
        for text in _hidden_text(name, data):
            for what, _ in found_in(text.encode(errors="surrogateescape"), variables):
                found.setdefault(what, name)
    for what, _ in found_in(name.encode(), variables):
        found.setdefault(what, f"{name} (its name)")
    return [f"{where}: {what}" for what, where in found.items()]


@contextlib.contextmanager
def _data(content: Path | bytes) -> Iterator[bytes | mmap.mmap]:
    """The content; a file is mapped, because logs may be larger than memory."""
    if isinstance(content, bytes) or not content.stat().st_size:  # an empty file cannot be mapped
        yield content if isinstance(content, bytes) else b""
        return
    with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _hidden_text(name: str, data: bytes | mmap.mmap) -> Iterator[str]:
    """The texts of a file that its bytes do not show."""
    if name.endswith(".json"):
        try:
            yield "\n".join(_strings(json.loads(data[:])))
        except (ValueError, RecursionError):
            raise UserError("cannot be packed: it is not JSON, so it cannot be searched for secrets", file=Path(name)) from None
    elif name.endswith(".parquet"):
        yield "\n".join(_parquet_texts(name, data[:]))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _parquet_texts(name: str, data: bytes) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        message = f"cannot be packed: it is not Parquet, so it cannot be searched for secrets ({(str(error).splitlines() or ['?'])[0]})"
        raise UserError(message, file=Path(name)) from None
    for key, value in (table.schema.metadata or {}).items():
        yield f"{key.decode(errors='replace')}\n{value.decode(errors='replace')}"
    for field in table.schema:
        yield field.name
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or _is_numbers(field.type)):
            yield from {str(value) for value in table[field.name].unique().to_pylist() if value is not None}


def _is_numbers(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)))
