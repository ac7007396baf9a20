"""`bench images`: which container image each engine runs in, and getting them."""

from collections.abc import Sequence
from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import ADAPTERS, AS_JSON, FILE_ONLY, print_json, show

NAMES = click.argument("names", nargs=-1, required=True, metavar="ENGINE[/VARIANT]...")
_EPILOG = """\b
Examples:
  bench images                              every image, and which of them are here
  bench images build llamacpp/cpu vllm      an engine's name alone: all its variants
  bench images pull sglang/cuda
  bench images pin all                      write the digests the registries answer with
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@click.option("--table", type=FILE_ONLY, help="Another images.yaml; its Dockerfiles are in the same folder.")
@ADAPTERS
@AS_JSON
@click.pass_context
def images(context: click.Context, table: Path | None, adapters: Sequence[Path], as_json: bool) -> None:
    """List the container images: base image, whether it is pinned, and whether the image that runs is here."""
    context.obj = (table, adapters)
    if context.invoked_subcommand:
        return
    found = enginebench.list_images(table, adapters)
    if as_json:
        print_json([each.to_dict() for each in found.images])
        return
    width = max(len(each.image.key) for each in found.images)
    for each in found.images:
        image = each.image
        click.echo(f"{image.key:<{width}}  {image.devices:<6}  {each.trust:<8}  {each.state or '?':<7}  {image.tagged}")
        if image.note:
            click.echo(f"{'':<{width}}  note: {image.note}")
    if found.daemon_problem:
        click.echo(f"which of them are local is unknown: {found.daemon_problem}", err=True)


@images.command(epilog="\b\nExamples:\n  bench images build llamacpp/cpu")
@NAMES
@click.pass_obj
def build(given: tuple[Path | None, Sequence[Path]], names: Sequence[str]) -> None:
    """Build the images that run: the base with our Dockerfile on top. Existing images stay as they are."""
    table, adapters = given
    for image, name, ident in enginebench.build_images(names, table=table, adapters=adapters, on_step=show):
        click.echo(f"{image.key}: {name} {ident}")


@images.command(epilog="\b\nExamples:\n  bench images pull vllm/cuda sglang/cuda")
@NAMES
@click.pass_obj
def pull(given: tuple[Path | None, Sequence[Path]], names: Sequence[str]) -> None:
    """Fetch the base images, by digest if they are pinned."""
    for image in enginebench.pull_images(names, table=given[0], on_step=show):
        click.echo(f"{image.key}: {image.base}")


@images.command(epilog="\b\nExamples:\n  bench images pin llamacpp\n  bench images pin all")
@NAMES
@click.pass_obj
def pin(given: tuple[Path | None, Sequence[Path]], names: Sequence[str]) -> None:
    """Ask the registries which digest each tag has now, and write it into the table."""
    for image, digest in enginebench.pin_images(names, table=given[0]):
        click.echo(f"{image.key}: {image.tagged} {digest}{'' if digest == image.digest else '  (new)'}")
