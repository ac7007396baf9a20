"""Builds and pulls images through the `docker` SDK, on whatever daemon DOCKER_HOST names. The SDK is imported when it is needed."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from enginebench.engines.images import Image, Recipe, Say
from enginebench.errors import UserError
from enginebench.runtime.container.client import DaemonUnreachable, connect

BUILD_S = 3600
"""An engine's wheels are several GB, and the daemon sends nothing while it downloads one layer."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class SdkDaemon:
    """A Docker daemon. Every method raises UserError when it refuses, and the constructor when there is none."""

    def __init__(self) -> None:
        try:
            self._api = connect(BUILD_S).api
        except DaemonUnreachable as error:
            raise UserError(str(error)) from None
        import docker

        self._docker = docker

    def ensure(self, wanted: Recipe, say: Say) -> str:
        """The id of the image that runs; builds it if it is missing."""
        if found := self.image_id(wanted.name):
            return found
        say(f"building {wanted.name} on {wanted.image.base}")
        return self.build(wanted, say)

    def image_id(self, name: str) -> str | None:
        """'sha256:...' of an image that exists; None for one that does not."""
        with self._reported(f"cannot inspect {name}"):
            try:
                return str(self._api.inspect_image(name)["Id"])
            except self._docker.errors.ImageNotFound:
                return None

    def build(self, recipe: Recipe, say: Say) -> str:
        """Build and name the image, and return its id. The base is pulled if it is missing."""
        with self._reported(f"cannot build {recipe.name}"):
            steps = self._api.build(
                fileobj=io.BytesIO(recipe.context()), custom_context=True, dockerfile="Dockerfile", tag=recipe.name, rm=True,
                forcerm=True, buildargs=recipe.arguments, labels={"enginebench.base": recipe.image.base}, decode=True,
                network_mode="host",  # a build may need a package index that only this machine's resolver finds
            )  # fmt: skip
            _follow(steps, say, f"cannot build {recipe.name}")
            return str(self._api.inspect_image(recipe.name)["Id"])

    def pull(self, image: Image, say: Say) -> None:
        with self._reported(f"cannot pull {image.base}"):
            steps = self._api.pull(image.repository, tag=image.digest or image.tag, stream=True, decode=True)
            _follow(steps, say, f"cannot pull {image.base}")

    def digest(self, image: Image) -> str:
        """The digest that the registry now has for the base's tag; pulls nothing."""
        with self._reported(f"cannot get the digest of {image.tagged}"):
            return str(self._api.inspect_distribution(image.tagged)["Descriptor"]["digest"])

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except (self._docker.errors.DockerException, OSError) as error:
            text = str(getattr(error, "explanation", None) or error)
            raise UserError(f"{what}: {' '.join(text.split())}", advice=_advice(str(error))) from None


def _follow(steps: Iterator[dict[str, Any]], say: Say, what: str) -> None:
    """Pass the daemon's messages on, without progress bars. UserError for an error in the stream, whose HTTP status is 200 all the same."""
    last = ""
    for step in steps:
        if "error" in step:
            raise UserError(f"{what}: {' '.join(str(step['error']).split())}", advice=_advice(json.dumps(step)))
        line = _COLOUR.sub("", str(step.get("stream") or (step.get("status", "") if "progress" not in step else ""))).strip()
        if line and line != last:
            say(line)
            last = line


def _advice(message: str) -> str | None:
    unreachable = "the daemon cannot reach the registry: load the image from a file (docker load), or go online"
    known = {
        "manifest unknown": "the registry has no such tag: correct it in the table",
        "not found": "the registry has no such image or tag: correct it in the table",
        "no such host": unreachable,
        "i/o timeout": unreachable,
        "connection refused": unreachable,
        "unauthorized": "log in where the daemon runs: docker login",
        "denied": "log in where the daemon runs: docker login",
    }
    return next((advice for words, advice in known.items() if words in message.lower()), None)
