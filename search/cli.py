"""The `tcpa` command: parse, call one function, print. Heavy parts load on first use."""

import atexit
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from search.study.address import local_folder
from search.tracking.secrets import hide, restart_without_secrets
from search.usage import Verbs, explain
from tcpa_core import __version__
from tcpa_core.errors import ConfigError, StoppedError, StudyError, TcpaError

DONE, FAILURES, WRONG_INPUT = 0, 1, 2
MAX_SHOWN = 2_000
"""Characters of an error message; a value in it may be a whole file."""

app = typer.Typer(
    name="tcpa",
    cls=Verbs,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
DEFAULT_ROOT = Path("studies")


class Verb(StrEnum):
    """Kinds of space files, by the verb that runs them."""

    search = "search"
    ablate = "ablation"


@app.callback(invoke_without_command=True)
def tcpa(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """Search and ablation for visual prompt tuning on frozen ViTs."""
    if version:
        print(f"tcpa {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def quickstart(root: Root = DEFAULT_ROOT, tracking_uri: Uri = None) -> None:
    """Search, ablate and report on shipped images with the shipped backbone, offline."""
    from search.verbs.quickstart import run_quickstart

    _exit(run_quickstart(root, tracking_uri, Console()))


@app.command()
def plan(
    space: Space,
    study: Name = None,
    root: Root = DEFAULT_ROOT,
    set_: Set = None,
    trials: Trials = None,
    tracking_uri: Uri = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train a few steps of each method.")
    ] = False,
) -> None:
    """Check a space and say what it would run and cost."""
    _show(_requested(space, set_, trials), study, root, tracking_uri, Console(), probe=probe)


@app.command()
def search(
    space: Space,
    study: Name = None,
    root: Root = DEFAULT_ROOT,
    set_: Set = None,
    trials: Trials = None,
    address: Address = None,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
) -> None:
    """Search a space for its best setting."""
    _start(Verb.search, space, study, root, set_, trials, address, tracking_uri, dry_run)


@app.command()
def ablate(
    space: Space,
    study: Name = None,
    root: Root = DEFAULT_ROOT,
    set_: Set = None,
    trials: Trials = None,
    address: Address = None,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
    from_: Annotated[
        str | None, typer.Option("--from", help="Search whose best point is the base.")
    ] = None,
    accept: Accept = False,
) -> None:
    """Run an ablation: every point of a design with every seed."""
    _start(
        Verb.ablate, space, study, root, set_, trials, address, tracking_uri, dry_run, from_, accept
    )


@app.command()
def resume(
    study: Study,
    root: Root = DEFAULT_ROOT,
    address: Address = None,
    tracking_uri: Uri = None,
    accept: Accept = False,
) -> None:
    """Take an interrupted study up where it stopped."""
    from search.study.folder import StudyDir
    from search.study.identity import check_unchanged
    from search.verbs.run import run_and_watch

    folder = StudyDir.open(root, study)
    change = check_unchanged(folder, accept=accept)
    _exit(
        run_and_watch(
            folder, root, Console(), address=address, tracking_uri=tracking_uri, change=change
        )
    )


@app.command()
def confirm(
    study: Study,
    root: Root = DEFAULT_ROOT,
    top: Annotated[int, typer.Option(min=2, help="Best points to confirm.")] = 3,
    seeds: Seeds = 5,
    address: Address = None,
    accept: Accept = False,
) -> None:
    """Let the best points of a search race on fresh seeds, and test the winner."""
    from search.study.folder import StudyDir
    from search.verbs.confirm import confirm as run
    from search.verbs.confirm import confirmed_name

    console = Console()
    folder = StudyDir.open(root, study)
    code = run(folder, root, console, top=top, seeds=seeds, address=address, accept=accept)
    _report_confirmed(root / confirmed_name(study), code, console)


@app.command()
def compare(
    space: Space,
    study: Name = None,
    root: Root = DEFAULT_ROOT,
    set_: Set = None,
    trials: Trials = None,
    seeds: Seeds = 5,
    address: Address = None,
    tracking_uri: Uri = None,
    dry_run: DryRun = False,
) -> None:
    """Search each method with the same budget, then train its best point on fresh seeds."""
    from search.verbs.confirm import compare as run_both
    from search.verbs.confirm import confirmed_name

    console = Console()
    fair = ["sampler.per=methods", "scheduler.name=none", *(set_ or [])]
    checked = _show(
        _requested(space, fair, trials, Verb.search),
        study,
        root,
        tracking_uri,
        console,
        starts=not dry_run,
    )
    methods = len(checked.space.axes["methods"].ends())
    console.print(f"then {methods} methods x {seeds} fresh seeds: {methods * seeds} trials.")
    if not dry_run:
        code = run_both(checked, root, console, seeds=seeds, address=address)
        _report_confirmed(root / confirmed_name(checked.name), code, console)


@app.command()
def extend(
    study: Study,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials to add.")],
    root: Root = DEFAULT_ROOT,
    address: Address = None,
    accept: Accept = False,
) -> None:
    """Give a search more trials and go on with it."""
    from search.proposals.samplers.base import check_sampler
    from search.study.folder import StudyDir
    from search.study.identity import check_unchanged
    from search.verbs.run import run_and_watch

    folder = StudyDir.open(root, study)
    change = check_unchanged(folder, accept=accept)
    check_sampler(folder.space().sampler.name)
    folder.extend(trials)
    _exit(run_and_watch(folder, root, Console(), address=address, change=change))


@app.command()
def stop(study: Study, root: Root = DEFAULT_ROOT) -> None:
    """Ask the driver of a running study on this machine to end in order."""
    from search.study.folder import StudyDir
    from search.verbs.run import stop_driver

    stop_driver(StudyDir.open(root, study), Console())


@app.command()
def replay(
    study: Study,
    trial: Annotated[str, typer.Argument(help="Name of the trial: 00012, or 12.")],
    root: Root = DEFAULT_ROOT,
    accept: Accept = False,
) -> None:
    """Run a stored trial again and say whether the numbers agree."""
    from search.study.folder import StudyDir
    from search.verbs.replay import replay as run_again

    _exit(run_again(StudyDir.open(root, study), trial, Console(), accept=accept))


@app.command()
def inspect(
    study: Study,
    trials: Annotated[list[str], typer.Argument(help="Trials, for example 12 OTHER_STUDY/7.")],
    root: Root = DEFAULT_ROOT,
    images: Annotated[int, typer.Option(min=1, help="Val images to look at.")] = 200,
    accept: Accept = False,
) -> None:
    """Draw what trained trials attend to: maps, prompts used, kept mass, rank, t-SNE."""
    from reports.inspection_report import write_inspection
    from search.study.folder import StudyDir
    from search.verbs.inspect import look_into

    folder, console = StudyDir.open(root, study), Console()
    looks = look_into(folder, trials, console, images=images, accept=accept)
    for line in write_inspection(looks, folder.path):
        console.print(line, markup=False, soft_wrap=True)


@app.command()
def status(study: Study, root: Root = DEFAULT_ROOT) -> None:
    """Say where a study stands, from its journal alone."""
    from search.study.folder import StudyDir
    from search.verbs.run import show_status

    show_status(StudyDir.open(root, study), Console())


@app.command(name="list")
def list_(root: Root = DEFAULT_ROOT) -> None:
    """List the studies of a folder: state, trials, best point, last event."""
    from search.verbs.overview import study_lines

    for line in study_lines(root):
        print(_printable(line))


@app.command()
def report(
    study: Study,
    root: Root = DEFAULT_ROOT,
    live: Annotated[bool, typer.Option("--live", help="Refresh it while the study runs.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between refreshes.")] = 10,
) -> None:
    """Gather a study into Parquet tables, plots and report.html."""
    from reports.build import build_report
    from search.study.folder import StudyDir
    from search.verbs.run import follow

    folder = StudyDir.open(root, study)
    console = Console()
    if live:
        follow(folder, lambda: "\n".join(build_report(folder.path).lines()), console, every)
        return
    for line in build_report(folder.path).lines():
        console.print(line, markup=False, soft_wrap=True)


@app.command()
def sync(study: Study, root: Root = DEFAULT_ROOT, tracking_uri: Uri = None) -> None:
    """Write to MLflow whatever it lacks of a study's journal."""
    from search.study.folder import StudyDir
    from search.tracking.mirror import sync as write_all
    from search.verbs.run import tracking_of

    folder = StudyDir.open(root, study)
    driver = folder.driver()
    if driver is not None:
        raise StudyError(
            f"study {study!r} is run by pid {driver.pid} on {driver.host}, which mirrors it; sync "
            "it when that has ended."
        )
    console = Console()
    uri, artifacts = tracking_of(folder, root, tracking_uri)
    say = partial(console.print, markup=False)
    count = write_all(folder.path, uri, artifact_root=artifacts, warn=say)
    console.print(f"MLflow holds {count} trials of {study}.", markup=False)


@app.command()
def dashboard(
    root: Root = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen at; one that others reach demands a password.")
    ] = "127.0.0.1",
) -> None:
    """Open the MLflow pages of a studies folder on http://127.0.0.1:PORT until Ctrl-C."""
    from search.study.address import database_of

    database = database_of(root)
    if not database.is_file():
        raise StudyError(f"no MLflow database {database}; run a study with this --root first.")
    from search.tracking.pages import is_open, opening, serve, server_command
    from search.verbs.run import run_pages

    server_command(database, host, port)  # refuses before anything is said
    address = f"http://{host}:{port}"
    lines = [f"MLflow: {address}  (Ctrl-C ends it)", *run_pages(database, address)]
    print("\n".join(lines + [opening(host, port)] * is_open(host)), flush=True)
    serve(database, host, port)


@app.command()
def doctor(root: Root = DEFAULT_ROOT, address: Address = None, tracking_uri: Uri = None) -> None:
    """Say whether this machine is ready: versions, devices, disks, MLflow and Ray."""
    from search.verbs.doctor import examine

    _exit(examine(root, Console(), address=address, tracking_uri=tracking_uri))


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="Kind of data set, for example vtab1k.")],
    root: Annotated[str | None, typer.Option("--root", help="Folder of the data set.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="data.PATH=value; may be repeated.")
    ] = None,
) -> None:
    """Check a data set and say what is in it."""
    from search.verbs.run import show_data
    from spaces.overrides import parse_override
    from tcpa_core.config import TrialConfig

    folder = None if root is None else str(local_folder(root))
    settings = dict(parse_override(text) for text in set_ or [])
    config = TrialConfig.from_flat({"data.name": name, "data.root": folder} | settings)
    show_data(config.data, Console())


@app.command()
def settings(
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


@app.command()
def presets() -> None:
    """List the spaces that are shipped."""
    from spaces.load import preset_names, preset_purpose

    width = max(map(len, preset_names()))
    for name in preset_names():
        print(f"{name:<{width}}  {preset_purpose(name)}")


@app.command()
def backbones(
    pattern: Annotated[str, typer.Argument(help="Part of a name, with * as wildcard.")] = "*",
) -> None:
    """List the ViTs that can be used as backbone."""
    from tcpa_core.model.load_backbone import backbone_names

    found = backbone_names(pattern)
    if not found:
        raise ConfigError(f"no ViT matches {pattern!r}; 'tcpa backbones' lists all.")
    print("\n".join(found))


def _report_confirmed(folder: Path, code: int, console: Console) -> None:
    from reports.build import build_report
    from search.study.folder import StudyDir

    if StudyDir(folder).has_ended:  # also where a trial has failed: the verdict says what it lacks
        summary = build_report(folder)
        console.print(f"Intervals and paired tests: {summary.html}", markup=False, soft_wrap=True)
    _exit(code)


def _start(
    verb: Verb,
    space: str,
    study: str | None,
    root: Path,
    set_: list[str] | None,
    trials: int | None,
    address: str | None,
    tracking_uri: str | None,
    dry_run: bool,
    from_: str | None = None,
    accept: bool = False,
) -> None:
    console = Console()
    winner, change = _winner(from_, root, console, accept)
    asked = _requested(space, set_, trials, verb, winner)
    checked = _show(asked, study, root, tracking_uri, console, starts=not dry_run)
    if dry_run:
        return
    folder = checked.create()
    from search.driver.ray_session import connect
    from search.imports import import_meanwhile

    imports = import_meanwhile("search.verbs.run")
    with connect(address, os.cpu_count() or 1):
        imports.join()
        from search.verbs.run import run_and_watch

        uri = checked.tracking_uri
        code = run_and_watch(
            folder, root, console, address=address, tracking_uri=uri, change=change
        )
    _exit(code)


def _winner(
    study: str | None, root: Path, console: Console, accept: bool
) -> tuple[tuple[dict[str, Any], str] | None, Any]:
    """Settings that a search ends with and whence, and what has changed since it was made."""
    if study is None:
        return None, None
    from search.study.folder import StudyDir
    from search.study.identity import check_unchanged
    from search.verbs.confirm import chosen_point

    folder = StudyDir.open(root, study)
    settings, how = chosen_point(folder, root)
    change = check_unchanged(folder, accept=accept, reads=False)
    console.print(f"base: the point {how}.", markup=False)
    return (settings, f"--from {study}"), change


def _requested(
    space: str,
    set_: list[str] | None,
    trials: int | None,
    verb: Verb | None = None,
    winner: tuple[dict[str, Any], str] | None = None,
) -> Any:
    from search.planning.requested_space import requested_space
    from spaces.overrides import parse_override

    settings = dict(parse_override(text) for text in set_ or [])
    return requested_space(space, settings, trials=trials, kind=verb, winner=winner)


def _show(
    space: Any,
    study: str | None,
    root: Path,
    tracking_uri: str | None,
    console: Console,
    *,
    probe: bool = False,
    starts: bool = False,
) -> Any:
    """Check a space, show its plan and return it; nothing is written unless the study `starts`."""
    from search.imports import without_gc

    with without_gc():
        from search.planning.plan import plan_space, show_plan

    with Console(stderr=True).status("checking weights and data") as status:
        plan = plan_space(
            space,
            space.name if study is None else study,
            root,
            tracking_uri=tracking_uri,
            probe=probe,
            keep_images=starts,
            progress=lambda stage, done, total: status.update(f"{stage}: {done} of {total}"),
        )
    show_plan(plan, console)
    return plan


def _exit(code: int) -> None:
    raise typer.Exit(code)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _one_line(text: str) -> str:
    """A message for a terminal: what names and values hold cannot move its cursor or flood it."""
    shown = _printable(text)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]} ..."


def main(run: Callable[..., Any] = app) -> None:
    """Entry point: bad input is one or two sentences on stderr and exit code 2."""
    restart_without_secrets()
    try:
        code = run(prog_name="tcpa", standalone_mode=False)
    except TcpaError as err:
        print(f"error: {_one_line(hide(str(err)))}", file=sys.stderr)
        sys.exit(FAILURES if isinstance(err, StoppedError) else WRONG_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(FAILURES)
    except TyperException as err:  # how typer reports a wrong option, argument or verb
        print(f"error: {_one_line(explain(err))}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except Exception:  # a defect; its trace may quote addresses
        print(hide(traceback.format_exc()), file=sys.stderr)
        sys.exit(FAILURES)
    sys.exit(code if isinstance(code, int) else DONE)


def entry() -> None:
    """Run `main` as a process, and end it without freeing object by object what it holds.

    With torch, Ray and MLflow loaded, that takes Python two seconds.
    """
    code: Any = DONE
    try:
        main()
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()
    with suppress(OSError):  # nobody reads on
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    entry()
