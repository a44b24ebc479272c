"""tcpa plan."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import AsJson, Before, Common, Uri, with_common


@with_common
def command(
    common: Common,
    before: Before,
    tracking_uri: Uri = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train a few steps of each method.")
    ] = False,
    power: Annotated[
        bool, typer.Option("--power", help="Say which differences it will see, from other studies.")
    ] = False,
    pilot: Annotated[
        list[str] | None,
        typer.Option(
            "--pilot", metavar="STUDY", help="Study that --power goes by; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a space and say what it would run and cost."""
    from search.verbs.start import requested, shown_plan

    shown_plan(
        requested(common),
        common,
        tracking_uri,
        Console(),
        probe=probe,
        as_json=as_json,
        pilots=(pilot or []) if power or pilot else None,
        before=before,
    )
