"""A run or a folder of runs that is named by a URL, brought to this machine; names of files stay as they are."""

from __future__ import annotations

from pathlib import Path

from enginebench.errors import UserError
from enginebench.records.remote.urls import mirror_of, split, url_of


def local(path: str | Path) -> Path:
    """The local folder or file of what may be a URL: a run, a folder of runs, a capsule or a file of another tool, as it is there now.

    UserError if the store cannot be reached, or if nothing is there.
    """
    url = url_of(path)
    if url is None:
        return Path(path)
    from enginebench.records.remote.mirror import Mirror  # brings fsspec's file system of the URL

    parent, name = split(url)
    mirror = Mirror.of(parent)
    if mirror.remote.info(f"{name}/run.json") is not None:
        return mirror.pull_run(name)
    if mirror.remote.info(name) is not None:
        file = mirror_of(parent) / ".files" / name
        mirror.remote.download(name, file)
        return file
    folder = Mirror.of(url)
    place = folder.pull()
    if not any(place.glob("*/run.json")) and not any(place.glob("*/*/run.json")):
        raise UserError(f"{folder.remote.shown} has no runs", advice="store one there: bench run SCENARIO --results URL")
    return place
