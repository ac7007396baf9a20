"""The config.json of `hf:ORG/NAME`: from the hub cache if it is there, else fetched. Never fetches weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from enginebench.checkpoints.hub import HubReference, cached_folder, parse
from enginebench.errors import UserError

CONFIG = "config.json"
_FILES = (CONFIG, "hf_quant_config.json")
"""The second one is ModelOpt's, which some repositories lack."""
_SECONDS = 15.0
_ABSENT = 404
_CLOSED = (401, 403)


def hub_config(reference: str) -> tuple[str, Mapping[str, str]]:
    """The repository's name, and the texts of its config.json and of what describes its quantisation, by file name.

    UserError if it is no reference of a repository, if the repository has no config.json or is gated, and without a network.
    """
    wanted = parse(reference)
    if wanted is None or wanted.file is not None:
        raise UserError(f"'{reference}' names no repository", key="model", advice="write hf:ORG/NAME, or fetch the file and write its path")
    return wanted.repository.partition("/")[2], _texts(wanted)


@cache
def _texts(wanted: HubReference) -> Mapping[str, str]:
    folder = cached_folder(wanted.repository, CONFIG, os.environ) if wanted.revision is None else None
    if folder is not None:
        return {name: (folder / name).read_text(encoding="utf-8") for name in _FILES if (folder / name).is_file()}
    found = {name: text for name in _FILES if (text := _fetched(wanted, name)) is not None}
    if CONFIG not in found:
        raise UserError(f"{wanted.repository} has no {CONFIG} on the hub", key="model", advice="a repository of GGUF files has none")
    return found


def _fetched(wanted: HubReference, name: str) -> str | None:
    """The text of a file, None if the repository lacks it."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not endpoint.startswith(("https://", "http://")):
        raise UserError(f"HF_ENDPOINT is no address: '{endpoint}'")
    token = os.environ.get("HF_TOKEN")
    url = f"{endpoint.rstrip('/')}/{wanted.repository}/resolve/{wanted.revision or 'main'}/{name}"
    advice = f"write the path of its {CONFIG}, or a name of the catalogue"
    if os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "True", "ON", "YES"}:
        raise UserError(f"{wanted.repository} is not in the hub cache, and HF_HUB_OFFLINE is set", key="model", advice=advice)
    try:
        with urlopen(Request(url, headers={"Authorization": f"Bearer {token}"} if token else {}), timeout=_SECONDS) as answer:  # noqa: S310  # checked above
            return str(answer.read().decode("utf-8"))
    except HTTPError as error:
        if error.code == _ABSENT:
            return None
        if error.code in _CLOSED:
            closed = f"{wanted.repository} is gated, or it does not exist"
            raise UserError(closed, key="model", advice="accept its licence on the hub, and export HF_TOKEN") from None
        raise UserError(f"cannot fetch {url}: {error}", key="model", advice=advice) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot fetch {url}: {reason}", key="model", advice=f"check the network, or {advice}") from None
