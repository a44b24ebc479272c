"""tcpa settings."""

from typing import Annotated

import typer


def command(
    pattern: Annotated[str, typer.Argument(help="A path, a section, or a pattern with *.")] = "*",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/settings.md, all of them.")
    ] = False,
) -> None:
    """Say what settings there are: values, default and meaning."""
    from spaces import reference

    if markdown:
        print(reference.markdown(), end="")
        return
    for setting in reference.settings(pattern):
        print(f"{setting.path} = {setting.default}   ({setting.values})\n    {setting.meaning}")
