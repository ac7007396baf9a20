"""Byte code, made once before the workers of pytest-xdist start.

In a fresh checkout there is none, and each of six workers would compile the program, its libraries and all tests at the same time: eleven
seconds of a core for each.
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
    _side_by_side([import_all, *(partial(_rewrite, missing[i::cores], config) for i in range(cores))])


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
