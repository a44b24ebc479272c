"""Arguments and options that several verbs share: type, name and help text of each."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from search.study.address import local_folder

DEFAULT_ROOT = Path("studies")

Root = Annotated[
    Path,
    typer.Option(
        "--root", help="Folder that holds the studies.", parser=local_folder, metavar="PATH"
    ),
]
Space = Annotated[str, typer.Argument(help="YAML file, or the name of a preset.")]
Study = Annotated[str, typer.Argument(help="Name of a study below --root.")]
Name = Annotated[str | None, typer.Option("--study", help="Name of the study.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="path=value; may be repeated.")]
Trials = Annotated[int | None, typer.Option("--trials", help="Most trials.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster; default: local.")]
Uri = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow; default: ROOT/mlflow.db.")]
Seeds = Annotated[int, typer.Option(min=2, help="Most fresh seeds a point; 3 may decide.")]
Accept = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data", help="Go on although data or weights are not those recorded."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")]


@dataclass(frozen=True, slots=True)
class Common:
    """What every verb that makes a study is given: a space, and changes to it."""

    space: Space
    study: Name = None
    root: Root = DEFAULT_ROOT
    set_: Set = None
    trials: Trials = None


def with_common(command: Callable[..., None]) -> Callable[..., None]:
    """A command that typer gives each field of `Common` as an argument or option of its own.

    Args:
        command: Its first parameter is the `Common` value.
    """
    shared = list(inspect.signature(Common).parameters.values())
    _, *own = inspect.signature(command).parameters.values()

    def run(**given: Any) -> None:
        common = Common(**{one.name: given.pop(one.name) for one in shared})
        command(common, **given)

    # typer looks at the signature for the order and the defaults, and at the annotations for types
    parameters = [*shared, *own]
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
