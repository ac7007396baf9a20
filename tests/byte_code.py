"""Byte code and hypothesis' tables, made once before the workers of pytest-xdist start.

In a fresh checkout there are none, and each of six workers would compile the program, its libraries and all tests, and read the program for
constants and Unicode for its categories, all at the same time: a dozen seconds of a core for each.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from hypothesis.internal.charmap import charmap
from hypothesis.internal.constants_ast import constants_from_module

from .forked_bench import import_all

TESTS = Path(__file__).parent
FEW = 20
"""Fewer files than this are not worth a wait."""


def make(config: pytest.Config) -> None:
    """Whatever is missing, on all cores."""
    missing = [file for file in (*TESTS.rglob("test_*.py"), *TESTS.rglob("conftest.py")) if not _cached(file).exists()]
    if sys.dont_write_bytecode or len(missing) < FEW:
        return
    cores = os.cpu_count() or 1
    _side_by_side([_program, *(partial(_rewrite, missing[i::cores], config) for i in range(cores))])


def _program() -> None:
    """The program with what it imports, and what hypothesis keeps in .hypothesis."""
    import_all()
    charmap()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "enginebench":
            constants_from_module(module)


def _cached(file: Path) -> Path:
    """Where pytest keeps a test whose asserts it has rewritten."""
    return rewrite.get_cache_dir(file) / f"{file.stem}{rewrite.PYC_TAIL}"


def _rewrite(files: Sequence[Path], config: pytest.Config) -> None:
    for file in files:
        _cached(file).parent.mkdir(parents=True, exist_ok=True)
        digest, code = rewrite._rewrite_test(file, config)
        rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, digest, _cached(file))


def _side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Each in a fork. One that fails has made less: the workers make the rest."""
    children = []
    for task in tasks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forks of a process with threads, since Python 3.12
            child = os.fork()
        if not child:
            try:
                task()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
