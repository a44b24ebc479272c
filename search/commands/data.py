"""tcpa data."""

from typing import Annotated, Any

import typer
from rich.console import Console

from search.study.address import local_folder
from search.terminal import leave, printable
from search.usage import Verbs

Folder = Annotated[str | None, typer.Option("--root", help="Folder of the data set.")]


def _kinds() -> list[str]:
    from tcpa_core import plugins
    from tcpa_core.settings import DATASETS

    return list(plugins.names(DATASETS))


def _published() -> list[str]:
    from tcpa_core.data.base import PUBLISHED

    return list(PUBLISHED)


class DataVerbs(Verbs):
    """What can be done with data sets; a name of none of it is a data set to check."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Arguments of the verb, with it in front."""
        if not args:
            args = ["--help"]
        elif args[0] not in ("-h", "--help") and not self.knows(args[0]):
            args = ["check", *args]
        return super().parse_args(ctx, args)


command = typer.Typer(
    cls=DataVerbs,
    help="List, check or fetch data sets; 'tcpa data NAME' checks.",
)


@command.command("list")
def list_() -> None:
    """Say which kinds of data sets there are, and which published ones they read."""
    from search.verbs.data import kind_lines

    for line in kind_lines():
        print(printable(line))


@command.command()
def check(
    name: Annotated[
        str, typer.Argument(help="Kind of data set, for example vtab1k.", autocompletion=_kinds)
    ],
    root: Folder = None,
    img_size: Annotated[
        int, typer.Option("--img-size", min=1, help="Side of the images of trials, in pixels.")
    ] = 224,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="data.PATH=value; may be repeated.")
    ] = None,
) -> None:
    """Check a data set and say what is in it."""
    from search.verbs.data import kind_named, show_data
    from spaces.overrides import parse_override
    from tcpa_core.config import TrialConfig

    folder = None if root is None else str(local_folder(root))
    settings = dict(parse_override(text) for text in set_ or [])
    config = TrialConfig.from_flat({"data.name": kind_named(name), "data.root": folder} | settings)
    show_data(config.data, img_size, Console())


@command.command()
def get(
    name: Annotated[
        str,
        typer.Argument(
            help="A published set, or OWNER/NAME of a repository of the Hugging Face Hub.",
            autocompletion=_published,
        ),
    ],
    root: Annotated[str, typer.Option("--root", help="Folder to download into.")],
    yes: Annotated[bool, typer.Option("--yes", help="Agree to licence and size.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit of a repository.")
    ] = None,
    include: Annotated[
        str | None, typer.Option("--include", help="Pattern of paths in a repository.")
    ] = None,
) -> None:
    """Fetch a published data set, or what an interrupted call left of it."""
    from search.verbs.get_data import get_data

    folder = local_folder(root)
    leave(get_data(name, folder, Console(), yes=yes, revision=revision, include=include))
