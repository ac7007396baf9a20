"""Takes llama.cpp's sources out of llama-cpp-python's sdist, with CUDA kernels only for what is measured, so that they compile in minutes.

Kept: the CPU and CUDA backends and the server. Kernels of flash attention for other head sizes than HEADS, and of matrix products for other
types than TYPES, become functions that abort with a message: the dispatch code stays as it is, and a model that needs one of them says so
at once. Does not know which version it is given: instances are found by the macros that declare them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

VENDOR = "vendor/llama.cpp/"
HEADS = frozenset((64, 128))
"""Head sizes of gpt-oss, and of Llama 4 and Mixtral."""
TYPES = frozenset(("GGML_TYPE_MXFP4", "GGML_TYPE_Q4_K", "GGML_TYPE_Q6_K", "GGML_TYPE_Q8_0"))
"""Types of the quantised weights of the recipes."""
UNUSED = re.compile(
    r"(docs|media|models|tests|examples|benches|gguf-py|pocs|ci|grammars|requirements|\.github|\.devops|app|conversion)/"
    r"|scripts/(?!.*\.cmake$)|ggml/src/ggml-(?!cpu/|cuda/)[a-z0-9]+/"
    r"|tools/(?!server/|mtmd/|ui/|CMakeLists\.txt)|tools/(server|ui)/(tests|webui|bench|themes|node_modules|src)/"
    r"|.*\.(gguf|png|jpg|gif|svg|ipynb|mp3|wav|jpeg|mp4|webp)$"
)
"""Paths in llama.cpp that the server does not need."""
SECOND = {"MMQ_CASE": "", "MMQ_CASE_W4A4": ", GGML_PREC_Q4"}
"""Macro of matrix products -> the arguments of the template after the type."""
NAMED = "fattn-vec"
"""Beginning of the files of instances that CMake names; others are those that it finds."""
_CASE = re.compile(r"^DECL_(?P<kind>FATTN_\w+_CASE|MMQ_CASE(?:_W4A4)?)\((?P<arguments>[^)]*)\);\s*$", re.MULTILINE)
STUBS: dict[str, tuple[str, str, str]] = {
    "FATTN_TILE_CASE": ("ggml_cuda_flash_attn_ext_tile_case", "int, int", "ggml_backend_cuda_context &, ggml_tensor *"),
    "FATTN_MMA_F16_CASE": ("ggml_cuda_flash_attn_ext_mma_f16_case", "int, int, int, int", "ggml_backend_cuda_context &, ggml_tensor *"),
    "FATTN_VEC_CASE": ("ggml_cuda_flash_attn_ext_vec_case", "int, ggml_type, ggml_type", "ggml_backend_cuda_context &, ggml_tensor *"),
    "MMQ_CASE": ("mul_mat_q_case", "ggml_type, ggml_prec = GGML_PREC_Q8", "ggml_backend_cuda_context &, const mmq_args &, cudaStream_t"),
}
STUBS["MMQ_CASE_W4A4"] = STUBS["MMQ_CASE"]
"""Macro -> the function template that it instantiates, its template's and its own parameters."""


def pack_sources(sdist: Path, folder: Path) -> list[Path]:
    """Unpack and trim into `folder`. Returns the files. Does nothing where it has been done for this sdist and this file."""
    mark, digest = folder / "FROM", hashlib.sha256(sdist.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if not (mark.exists() and digest in mark.read_text()):
        shutil.rmtree(folder, ignore_errors=True)
        unpack(sdist, folder)
        trim(folder / "ggml" / "src" / "ggml-cuda")
        for part in (".", "tools"):
            drop_folders(folder / part / "CMakeLists.txt")
        mark.write_text(f"{sdist.name}\nsha256 of it and of the script that trimmed it: {digest}\n")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def unpack(sdist: Path, folder: Path) -> None:
    """vendor/llama.cpp of the sdist, but for what is UNUSED. No path may leave the folder."""
    with tarfile.open(sdist) as source:
        for member in source:
            path = member.name.partition("/")[2]  # below the folder of the sdist, which may also hold a copy of its repository
            path = path.removeprefix(VENDOR) if path.startswith(VENDOR) and member.isfile() else ""
            if not path or UNUSED.match(path) or ".." in Path(path).parts:
                continue
            data = source.extractfile(member)
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data.read() if data else b"")
            target.chmod(0o755 if member.mode & 0o100 else 0o644)


def drop_folders(file: Path) -> None:
    """Take out of a CMakeLists.txt the folders that were not unpacked."""
    if file.exists():
        kept = lambda found: found[0] if (file.parent / found[1]).is_dir() else ""  # noqa: E731
        file.write_text(re.sub(r"^[ \t]*add_subdirectory\(([\w./-]+)\)[ \t]*$", kept, file.read_text(), flags=re.MULTILINE))


def wanted(kind: str, arguments: str) -> bool:
    """Whether a kernel is built: by its head sizes (the first numbers) or its type."""
    parts = [part.strip() for part in arguments.split(",")]
    if kind in SECOND:
        return parts[0] in TYPES
    heads = {int(part) for part in parts[: 1 if kind == "FATTN_VEC_CASE" else 2] if part.isdigit()}
    return heads <= HEADS


def trim(cuda: Path) -> None:
    """Move the declarations of kernels that are not wanted from the files of instances into one file of stubs."""
    left_out: list[tuple[str, str]] = []
    for file in sorted((cuda / "template-instances").glob("*.cu")):
        text = file.read_text()
        cases = [(found["kind"], found["arguments"]) for found in _CASE.finditer(text)]
        dropped = [case for case in cases if case[0] in STUBS and not wanted(*case)]
        if not dropped:
            continue
        left_out += dropped
        if len(dropped) == len(cases) and not file.name.startswith(NAMED):
            file.unlink()
        else:
            file.write_text(_CASE.sub(lambda found: found[0] if (found["kind"], found["arguments"]) not in dropped else "", text))  # noqa: B023
    if left_out:
        (cuda / "left-out.cu").write_text("\n".join(stubs(left_out)) + "\n")


def stubs(cases: list[tuple[str, str]]) -> Iterator[str]:
    yield '// Kernels that this build leaves out. Calling one ends the program.\n#include "common.cuh"\n\nstruct mmq_args;\n'
    for name, template, parameters in sorted({STUBS[kind] for kind, _ in cases}):
        yield f"template <{template}> void {name}({parameters});"
    for kind, arguments in dict.fromkeys(cases):
        (name, _, parameters), arguments = STUBS[kind], arguments + SECOND.get(kind, "")  # noqa: PLW2901
        yield f'template <> void {name}<{arguments}>({parameters}) {{ GGML_ABORT("{name}<{arguments}> was left out of this build"); }}'
