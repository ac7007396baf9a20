"""Container images: the table that ships, what is built of it, and digests written back into it. What builds and pulls is a stand-in."""

from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.engines import docker_images
from enginebench.engines.images import Image, Recipe, Say, pin, read_images, recipe, resolve, table_file
from enginebench.engines.registry import constraints_of, discover
from enginebench.errors import UserError

DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGES = read_images()
REGISTRY = discover()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A copy of the table with its Dockerfiles."""
    return Path(shutil.copytree(table_file().parent, tmp_path / "containers")) / "images.yaml"


class FakeDaemon(docker_images.SdkDaemon):
    """Has what it was told to build, and one digest for every tag."""

    def __init__(self) -> None:
        self.built: dict[str, Recipe] = {}
        self.pulled: list[str] = []

    def image_id(self, name: str) -> str | None:
        return f"id of {name}" if name in self.built else None

    def build(self, recipe: Recipe, say: Say) -> str:
        self.built[recipe.name] = recipe
        return f"id of {recipe.name}"

    def pull(self, image: Image, say: Say) -> None:
        self.pulled.append(image.base)

    def digest(self, image: Image) -> str:
        return DIGEST


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    fake = FakeDaemon()
    monkeypatch.setattr(docker_images, "SdkDaemon", lambda: fake)
    return fake


def made(image: Image) -> Recipe:
    adapter = REGISTRY.need(image.engine)
    return recipe(image, adapter.requirements, constraints_of(adapter))


def test_every_engine_that_a_container_can_hold_has_an_image() -> None:
    started = {name for name in REGISTRY if "process" in REGISTRY[name].runtimes} - {"fake"}
    assert {image.engine for image in IMAGES.values()} == started - {"mlx"}, "MLX has no GPU in a container"
    assert {"cuda", "rocm"} <= {image.variant for image in IMAGES.values() if image.engine in ("vllm", "sglang", "llamacpp")}


def test_every_dockerfile_is_used_and_leaves_the_command_to_the_adapter() -> None:
    files = {image.dockerfile.name for image in IMAGES.values()}
    assert files == {file.name for file in table_file().parent.glob("*.Dockerfile")}
    for name in files:
        text = (table_file().parent / name).read_text()
        assert text.startswith("# ")
        assert "ARG BASE\nFROM ${BASE}\n" in text
        assert text.endswith("HEALTHCHECK NONE\nENTRYPOINT []\nCMD []\n")
        assert "# syntax" not in text, "would be pulled from a registry"


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_what_is_installed_into_an_image_is_what_the_adapter_pins(image: Image) -> None:
    built = made(image)
    if "ARG REQUIREMENTS" in built.dockerfile:
        assert built.arguments["REQUIREMENTS"]
        assert f"=={image.install.version}" in built.arguments["REQUIREMENTS"]
        assert "COPY constraints.txt" in built.dockerfile
    else:
        assert list(built.arguments) == ["BASE"]
        assert image.install.version == "unknown" or image.install.version in image.tag
    assert image.install.python or image.install.binary


def test_only_a_digest_or_a_release_is_no_floating_tag() -> None:
    assert [image.key for image in IMAGES.values() if image.floating] == ["exllamav3/tabbyapi"]
    some = resolve("ollama")
    for tag in ("latest", "nightly", "server-cuda", "3.11-slim", "cu13", "main"):
        assert replace(some, tag=tag).floating, tag
        assert not replace(some, tag=tag, digest=DIGEST).floating
    for tag in ("v0.33.0", "1.3.0rc24", "server-b11347", "2.13.0-cuda13.0-cudnn9-runtime"):
        assert not replace(some, tag=tag).floating, tag


def test_the_first_variant_is_the_default_and_unknown_names_are_refused() -> None:
    assert resolve("llamacpp").variant == "cpu"
    assert resolve("llamacpp", "cuda").tagged.startswith("ghcr.io/ggml-org/llama.cpp:server-cuda-b")
    with pytest.raises(UserError, match="'vlm'") as unknown:
        resolve("vlm")
    assert "vllm" in str(unknown.value)
    with pytest.raises(UserError, match="llamacpp/metal"):
        resolve("llamacpp", "metal")


def test_the_name_of_a_built_image_changes_with_everything_that_goes_into_it() -> None:
    image = resolve("llamacpp", "cpu")
    whole = recipe(image, ("xllamacpp==1",))
    others = [
        recipe(replace(image, tag="3.12.1"), ("xllamacpp==1",)),
        recipe(replace(image, digest=DIGEST), ("xllamacpp==1",)),
        recipe(image, ("xllamacpp==2",)),
        replace(whole, constraints="a==1\n"),
        replace(whole, dockerfile=whole.dockerfile + "RUN true\n"),
    ]
    assert len({other.name for other in [whole, *others]}) == 6
    assert recipe(image, ("xllamacpp==1",)).name == whole.name
    server = resolve("llamacpp", "cuda")
    assert recipe(server, ("a==1",)).name == recipe(server, ("a==2",)).name, "nothing is installed into it"


def test_the_build_context_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("torch==2.13.0\n")
    built = recipe(resolve("transformers"), ("transformers==5.23.0",), pins)
    assert built.context() == built.context()
    with tarfile.open(fileobj=io.BytesIO(built.context())) as archive:
        texts = {member.name: archive.extractfile(member).read().decode() for member in archive.getmembers()}
    assert texts == {"Dockerfile": built.dockerfile, "constraints.txt": "torch==2.13.0\n"}
    assert built.arguments["BASE"] == built.image.base


def test_an_image_is_built_once() -> None:
    daemon, said = FakeDaemon(), list[str]()
    wanted = recipe(resolve("ollama"))
    assert daemon.ensure(wanted, said.append) == daemon.ensure(wanted, said.append) == f"id of {wanted.name}"
    assert len(said) == 1


def test_pinning_changes_one_line_and_can_be_repeated(table: Path) -> None:
    before = table.read_text().splitlines()
    pin(resolve("vllm", "rocm", table), DIGEST, table)
    after = table.read_text().splitlines()
    assert [(old, new) for old, new in zip(before, after, strict=True) if old != new] == [("      digest: null", f"      digest: {DIGEST}")]
    pinned = resolve("vllm", "rocm", table)
    assert pinned.base == f"vllm/vllm-openai-rocm@{DIGEST}"
    assert resolve("vllm", "cuda", table).digest is None
    other = DIGEST.replace("0123", "ffff")
    pin(pinned, other, table)
    assert resolve("vllm", "rocm", table).digest == other


def test_pinning_keeps_comments_and_says_where_no_digest_can_stand(table: Path) -> None:
    table.write_text(table.read_text().replace("tag: 0.33.3\n      digest: null", "tag: 0.33.3\n      digest: # unseen"))
    pin(resolve("ollama", "cuda", table), DIGEST, table)
    assert f"digest: {DIGEST} # unseen\n" in table.read_text()
    assert resolve("ollama", "cuda", table).digest == DIGEST
    table.write_text(table.read_text().replace(f"      digest: {DIGEST} # unseen\n", ""))
    with pytest.raises(UserError, match="no `digest:` line"):
        pin(resolve("ollama", "cuda", table), DIGEST, table)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("tag: 0.33.3\n", "tga: 0.33.3\n", "tga"),
        ("dockerfile: vllm.Dockerfile", "dockerfile: nowhere.Dockerfile", "nowhere.Dockerfile"),
        ("devices: amd", "devices: tpu", "devices"),
        ("digest: null", "digest: sha256:abc", "digest"),
        ("schema: 1", "schema: 2", "schema"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_line(table: Path, old: str, new: str, where: str) -> None:
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=r"images\.yaml:\d+") as refused:
        read_images(table)
    assert where in str(refused.value)


def test_the_commands_list_build_pull_and_pin(table: Path, daemon: FakeDaemon) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(bench, ["images", "--table", str(table), *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    listed = run()
    assert [line.split()[:4] for line in listed.splitlines() if line.startswith("llamacpp/cuda")] == [
        ["llamacpp/cuda", "nvidia", "tag", "only"]
    ]
    assert "floating" in next(line for line in listed.splitlines() if line.startswith("exllamav3/tabbyapi"))
    assert "sha256" in run("pin", "llamacpp/cuda", "ollama")
    assert {image.key for image in read_images(table).values() if image.digest} == {"llamacpp/cuda", "ollama/cuda", "ollama/rocm"}
    run("pull", "ollama/cuda")
    assert daemon.pulled == [f"ollama/ollama@{DIGEST}"]
    run("build", "llamacpp/cuda", "llamacpp/cuda")
    assert [built.image.key for built in daemon.built.values()] == ["llamacpp/cuda"]
    states = {line.split()[0]: line for line in run().splitlines() if "/" in line.split()[0]}
    assert "built" in states["llamacpp/cuda"]
    assert "pinned" in states["llamacpp/cuda"]
    assert "missing" in states["llamacpp/rocm"]


def test_without_a_daemon_the_list_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UserError("there is no container daemon to talk to: nobody")

    monkeypatch.setattr(docker_images, "SdkDaemon", refuse)
    done = CliRunner().invoke(bench, ["images"])
    assert done.exit_code == 0
    assert "vllm/cuda" in done.output
    assert "nobody" in done.stderr
