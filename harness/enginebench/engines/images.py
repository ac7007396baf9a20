"""Container images by engine and variant: reads containers/images.yaml, builds images from it, and writes digests back into it.

The image that runs is a public base with one thin Dockerfile of containers/ on top, named by a hash of everything that it is built from.
`docker_images` builds and pulls.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from enginebench.adapter import Install
from enginebench.domain import fingerprint
from enginebench.errors import UserError, did_you_mean
from enginebench.inputs.fields import Name, Strict
from enginebench.inputs.source import Source, read
from enginebench.inputs.validation_errors import as_user_error
from enginebench.machine.folders import resource_dir

Say = Callable[[str], None]
Devices = Literal["cpu", "nvidia", "amd"]
DIGEST = r"sha256:[0-9a-f]{64}"
_RELEASE = re.compile(r"\d+\.\d+\.\d+|\bb\d{4,}")
"""The part of a tag that names one release: three numbers, or one of llama.cpp's builds."""
_WRITTEN = re.compile(r"\bdigest:(?:[ \t]+(?:null|~|['\"]?sha256:[0-9a-f]+['\"]?))?")


@dataclass(frozen=True)
class Image:
    """One row of the table: the base image, the Dockerfile on top of it, and how the engine is installed inside."""

    engine: str
    variant: str
    repository: str
    """Of the base, with its registry where that is not Docker Hub."""
    tag: str
    digest: str | None
    """Of the base when it was pinned."""
    dockerfile: Path
    devices: Devices
    install: Install
    """With paths inside the image."""
    note: str | None = None
    """What is uncertain about the tag."""

    @property
    def key(self) -> str:
        return f"{self.engine}/{self.variant}"

    @property
    def tagged(self) -> str:
        return f"{self.repository}:{self.tag}"

    @property
    def base(self) -> str:
        """What is pulled: the digest where there is one, else the tag."""
        return f"{self.repository}@{self.digest}" if self.digest else self.tagged

    @property
    def floating(self) -> bool:
        """Whether the base may change: it has neither a digest nor a tag that names a release."""
        return self.digest is None and _RELEASE.search(self.tag) is None


@dataclass(frozen=True)
class Recipe:
    image: Image
    dockerfile: str
    requirements: tuple[str, ...] = ()
    constraints: str = ""
    """Exact pins of the requirements' dependencies, in pip's form."""

    @property
    def name(self) -> str:
        """'enginebench/llamacpp:cuda-0123456789ab'; the hash covers the base and what goes on top of it."""
        parts = {"base": self.image.base, "dockerfile": self.dockerfile}
        if "REQUIREMENTS" in self.dockerfile:
            parts |= {"requirements": " ".join(self.requirements), "constraints": self.constraints}
        return f"enginebench/{self.image.engine}:{self.image.variant}-{fingerprint({**parts})}"

    @property
    def arguments(self) -> dict[str, str]:
        known = {"BASE": self.image.base, "REQUIREMENTS": " ".join(self.requirements)}
        return {name: value for name, value in known.items() if f"ARG {name}\n" in self.dockerfile}

    def context(self) -> bytes:
        """The build context as a tar archive: Dockerfile and constraints.txt. Its bytes are reproducible, so layers stay cached."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, text in (("Dockerfile", self.dockerfile), ("constraints.txt", self.constraints)):
                data = text.encode()
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return buffer.getvalue()


class _InstallRow(Strict):
    variant: str
    version: str
    python: str | None = None
    binary: str | None = None


class _Row(Strict):
    image: str = Field(pattern=r"^[a-z0-9][a-z0-9._:/-]*$")
    tag: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    digest: Annotated[str, Field(pattern=f"^{DIGEST}$")] | None = None
    dockerfile: str = Field(pattern=r"^[A-Za-z0-9._-]+\.Dockerfile$")
    devices: Devices
    install: _InstallRow
    note: str | None = None


class _Table(Strict):
    schema_version: Literal[1] = Field(alias="schema")
    images: dict[Name, Annotated[dict[Name, _Row], Field(min_length=1)]]


def table_file() -> Path:
    return resource_dir("containers") / "images.yaml"


def read_images(file: Path | None = None) -> Mapping[str, Image]:
    """Every image by 'engine/variant', in the file's order; Dockerfiles are in the same folder. UserError with file, line and key."""
    source = read(file or table_file())
    try:
        table = _Table.model_validate(source.data)
    except ValidationError as error:
        raise as_user_error(error, source, _Table) from None
    rows = [(engine, variant, row) for engine, variants in table.images.items() for variant, row in variants.items()]
    return {f"{engine}/{variant}": _image(engine, variant, row, source) for engine, variant, row in rows}


def _image(engine: str, variant: str, row: _Row, source: Source) -> Image:
    dockerfile = source.file.parent / row.dockerfile
    if not dockerfile.is_file():
        raise source.error(f"no {row.dockerfile} in the folder of this file", ("images", engine, variant, "dockerfile"))
    python, binary = (Path(path) if path else None for path in (row.install.python, row.install.binary))
    install = Install(row.install.variant, row.install.version, python, binary)
    return Image(engine, variant, row.image, row.tag, row.digest, dockerfile, row.devices, install, row.note)


def resolve(engine: str, variant: str | None = None, file: Path | None = None) -> Image:
    """The image of an engine: that variant, or the engine's first in the table. UserError when there is none."""
    images = read_images(file)
    variants = {image.variant: image for image in images.values() if image.engine == engine}
    if not variants:
        raise UserError(f"there is no image for '{engine}'", advice=did_you_mean(engine, {image.engine for image in images.values()}))
    if variant is None:
        return next(iter(variants.values()))
    if variant not in variants:
        raise UserError(f"there is no image '{engine}/{variant}'", advice=did_you_mean(variant, variants))
    return variants[variant]


def recipe(image: Image, requirements: Sequence[str] = (), constraints: Path | None = None) -> Recipe:
    """What is built for an image, with the adapter's pins for Dockerfiles that install the engine."""
    pins = constraints.read_text(encoding="utf-8") if constraints else ""
    return Recipe(image, image.dockerfile.read_text(encoding="utf-8"), tuple(requirements), pins)


def pin(image: Image, digest: str, file: Path | None = None) -> None:
    """Write a digest into the table and change nothing else. UserError when the file cannot be written."""
    path = file or table_file()
    source = read(path)
    at: tuple[str, ...] = ("images", image.engine, image.variant)
    if (*at, "digest") not in source.lines:
        raise source.error("has no `digest:` line to write to", at, advice="add `digest: null`")
    lines = source.text.splitlines(keepends=True)
    number = source.lines[(*at, "digest")] - 1
    lines[number] = _WRITTEN.sub(f"digest: {digest}", lines[number], count=1)
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        advice = "copy its folder, and name the copy: bench images --table FILE pin ..."
        raise UserError(f"cannot be written: {error.strerror}", file=path, advice=advice) from None
