"""`bench images`: which container image each engine runs in, and getting them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginebench.cli.shared import ADAPTERS, AS_JSON, print_json
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.engines.images import Daemon, Image, Recipe
    from enginebench.engines.registry import Registry

NAMES = click.argument("names", nargs=-1, required=True, metavar="ENGINE[/VARIANT]...")
_EPILOG = """\b
Examples:
  bench images                              every image, and which of them are here
  bench images build llamacpp/cpu vllm      an engine's name alone: all its variants
  bench images pull sglang/cuda
  bench images pin all                      write the digests the registries answer with
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="Another images.yaml; its Dockerfiles lie beside it.")
@ADAPTERS
@AS_JSON
@click.pass_context
def images(context: click.Context, table: Path | None, adapters: Sequence[Path], as_json: bool) -> None:
    """List the container images: base image, whether it is pinned, and whether the image that runs is here."""
    context.obj = (table, adapters)
    if context.invoked_subcommand:
        return
    from enginebench.engines.images import read_images
    from enginebench.engines.registry import discover

    found, registry = read_images(table), discover(adapters)
    daemon, problem = _daemon_if_any()
    rows = [(image, _state(image, registry, daemon)) for image in found.values()]
    if as_json:
        print_json([_as_data(image, state, registry) for image, state in rows])
        return
    width = max(len(key) for key in found)
    for image, state in rows:
        click.echo(f"{image.key:<{width}}  {image.devices:<6}  {_trust(image):<8}  {state or '?':<7}  {image.tagged}")
        if image.note:
            click.echo(f"{'':<{width}}  note: {image.note}")
    if problem:
        click.echo(f"which of them are here is not known: {problem}", err=True)


@images.command(epilog="\b\nExamples:\n  bench images build llamacpp/cpu")
@NAMES
@click.pass_obj
def build(given: tuple[Path | None, Sequence[Path]], names: Sequence[str]) -> None:
    """Build the images that run: the base with our Dockerfile on top. What is there already is left as it is."""
    from enginebench.engines.images import ensure
    from enginebench.engines.registry import discover

    table, adapters = given
    wanted, registry, daemon = _named(names, table), discover(adapters), _daemon()
    for image in wanted:
        made = _recipe(image, registry)
        click.echo(f"{image.key}: {made.name} {ensure(made, daemon, _say)}")


@images.command(epilog="\b\nExamples:\n  bench images pull vllm/cuda sglang/cuda")
@NAMES
@click.pass_obj
def pull(given: tuple[Path | None, Sequence[Path]], names: Sequence[str]) -> None:
    """Fetch the base images, by digest where they are pinned."""
    wanted, daemon = _named(names, given[0]), _daemon()
    for image in wanted:
        daemon.pull(image, _say)
        click.echo(f"{image.key}: {image.base}")


@images.command(epilog="\b\nExamples:\n  bench images pin llamacpp\n  bench images pin all")
@NAMES
@click.pass_obj
def pin(given: tuple[Path | None, Sequence[Path]], names: Sequence[str]) -> None:
    """Ask the registries which digest each tag has now, and write it into the table."""
    from enginebench.engines.images import pin as write

    wanted, daemon = _named(names, given[0]), _daemon()
    for image in wanted:
        digest = daemon.digest(image)
        write(image, digest, given[0])
        click.echo(f"{image.key}: {image.tagged} {digest}{'' if digest == image.digest else '  (new)'}")


def _named(names: Iterable[str], table: Path | None) -> list[Image]:
    """The images that 'all', an engine or engine/variant names, each once, in the order asked for."""
    from enginebench.engines.images import read_images, resolve

    known = read_images(table)
    found: dict[str, Image] = {}
    for name in names:
        engine, _, variant = name.partition("/")
        same = [image for image in known.values() if name == "all" or (not variant and image.engine == engine)]
        found |= {image.key: image for image in same or [resolve(engine, variant or None, table)]}
    return list(found.values())


def _recipe(image: Image, registry: Registry) -> Recipe:
    from enginebench.engines.images import recipe
    from enginebench.engines.registry import constraints_of

    adapter = registry.need(image.engine)
    return recipe(image, adapter.requirements, constraints_of(adapter))


def _daemon() -> Daemon:
    from enginebench.engines.docker_images import SdkDaemon

    return SdkDaemon()


def _daemon_if_any() -> tuple[Daemon | None, str | None]:
    try:
        return _daemon(), None
    except UserError as error:
        return None, error.message


def _say(text: str) -> None:
    from enginebench.domain.text import printable

    click.echo(printable(text), err=True)


def _trust(image: Image) -> str:
    return "pinned" if image.digest else "floating" if image.floating else "tag only"


def _state(image: Image, registry: Registry, daemon: Daemon | None) -> str | None:
    """'built', 'missing', or None where there is no daemon to ask or no adapter to build it for."""
    if daemon is None or image.engine not in registry:
        return None
    return "built" if daemon.image_id(_recipe(image, registry).name) else "missing"


def _as_data(image: Image, state: str | None, registry: Registry) -> JSON:
    from enginebench.domain import plain_object

    name = _recipe(image, registry).name if image.engine in registry else None
    return {**plain_object(image), "base": image.base, "floating": image.floating, "name": name, "here": state}
