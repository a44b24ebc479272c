"""tcpa plan."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import AsJson, Before, Common, DataFolder, Uri, with_common
from tcpa_core.errors import ConfigError


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
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Check a space or a suite and say what it would run and cost."""
    from spaces.read_suite import is_suite

    pilots = (pilot or []) if power or pilot else None
    if is_suite(common.space):
        from search.verbs.start_bench import plan_suite

        plan_suite(common, data, before, Console(), probe=probe, as_json=as_json, pilots=pilots)
        return
    if data is not None:
        raise ConfigError("--data is of a suite's data sets; of a space give --set data.root=DIR.")
    from search.verbs.start import requested, shown_plan

    shown_plan(
        requested(common),
        common,
        tracking_uri,
        Console(),
        probe=probe,
        as_json=as_json,
        pilots=pilots,
        before=before,
    )
