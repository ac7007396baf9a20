"""`container:` of a deployment as a pydantic model: the container of an engine with `runtime: docker`.

Knows nothing of Docker. Whether an image, a device or a path exists is checked when the container is created.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, field_validator
from pydantic_core import PydanticCustomError

from enginebench.domain.container import Container
from enginebench.inputs.fields import Strict

Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*(KiB|MiB|GiB|TiB)$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)


def _one_sentence(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Without this, pydantic reports an error for each of the three forms."""
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError("gpus", "must be a number of GPUs, all, or a list of UUIDs, got {got}", {"got": repr(value)}) from None


Gpus = Annotated[
    Annotated[int, Field(ge=0, le=1024, strict=True)] | Literal["all"] | Annotated[list[str], Field(min_length=1)],
    WrapValidator(_one_sentence),
]


class ContainerSettings(Strict):
    """The engine's container; only with `runtime: docker`. Every key has a default."""

    variant: str | None = Field(
        None, description="Which of the engine's images, see `bench images`; default: the first one that supports the deployment."
    )
    image: Annotated[str, Field(pattern=r"^[!-~]+$")] | None = Field(
        None, description="Image to run instead, with the same content, e.g. `vllm/vllm-openai@sha256:...`."
    )
    gpus: Gpus | None = Field(
        None, description="A number of GPUs, `all`, or a list of UUIDs (AMD: indices); default: as many as the deployment takes."
    )
    cpus: Annotated[float, Field(ge=0.01, le=4096)] | None = Field(
        None, description="CPU time in cores, e.g. `7.5`; a cell that was throttled by this limit is suspect."
    )
    cpuset: Annotated[str, Field(pattern=r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$")] | None = Field(
        None, examples=["0-15,32-47"], description="CPUs it may use, e.g. `0-15,32-47`."
    )
    memory: Size | None = Field(
        None, examples=["64GiB"], description="Most memory, e.g. `64GiB`, without swap; above it the kernel kills the engine."
    )
    shm: Size = Field(
        "16GiB",
        examples=["16GiB"],
        description="Most shared memory (/dev/shm), which ranks communicate through; counts as memory once it is used.",
    )
    ipc: Literal["private", "host"] = Field(
        "private", description="private: shared by the deployment's containers only. host: the machine's IPC namespace."
    )
    ulimits: dict[str, Annotated[int, Field(ge=-1, strict=True)]] = Field(
        default_factory=dict, description="Resource limits, soft and hard, -1 is none; e.g. `{memlock: -1, stack: 67108864}`."
    )
    env: dict[Variable, str] = Field(default_factory=dict, description="Environment variables. Stored with the results: never a secret.")
    secrets: list[Variable] = Field(
        default_factory=list, description="*Names* of environment variables that the container gets from `bench`'s own, e.g. `HF_TOKEN`."
    )
    mounts: list[Annotated[str, Field(pattern=r"^/[^:]*:/[^:]+(:(ro|rw))?$")]] = Field(
        default_factory=list, examples=[["/data:/data:rw"]], description="Further folders, `HOST:INSIDE`, read-only unless `:rw` is added."
    )
    hf_cache: bool = Field(default=True, description="Mount this machine's Hugging Face cache where the checkpoint is a hub id.")
    compile_cache: Annotated[str, Field(pattern=r"^/[^:]*$")] | None = Field(
        None,
        description="Folder of this machine that keeps compiled kernels and graphs between starts; default: every start compiles again.",
    )
    offline: bool = Field(default=False, description="Pull no image, and set Hugging Face libraries to offline.")
    user: Annotated[str, Field(pattern=r"^(caller|image|[0-9]+(:[0-9]+)?)$")] = Field(
        "caller", description="caller: files it writes belong to whoever runs `bench`. image: the image's own user. Or `UID:GID`."
    )
    network: Literal["private", "host"] = Field(
        "private", description="private: a network for the deployment, with published ports. host: the machine's network."
    )
    address: Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:]+$")] | None = Field(
        None, description="Address of the daemon's machine where ports are published, open to all that can reach it; default: 127.0.0.1."
    )

    @field_validator("env")
    @classmethod
    def _no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if _SECRET.search(name):
                raise PydanticCustomError(
                    "secret", "must not hold {name}: it is stored; export it and write its name under `secrets`", {"name": name}
                )
        return env

    def container(self) -> Container:
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in self.model_dump().items()}
        return Container(**values)
