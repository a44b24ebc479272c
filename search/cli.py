"""The `tcpa` command: its verbs, its exit codes, and what becomes of errors."""

import atexit
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from search.exit_codes import DONE, FAILURES, STOPPED, WRONG_INPUT
from search.terminal import one_line
from search.tracking.secrets import hide, restart_without_secrets
from search.usage import Verbs, explain
from tcpa_core import __version__
from tcpa_core.errors import FaultError, RunningError, StoppedError, TcpaError

ORDER = (
    *(
        "quickstart",
        "plan",
        "search",
        "ablate",
        "resume",
        "confirm",
        "compare",
        "bench",
        "extend",
        "stop",
    ),
    *(
        "replay",
        "inspect",
        "predict",
        "export",
        "push",
        "status",
        "list",
        "report",
        "sync",
        "dashboard",
        "doctor",
        "data",
    ),
    *("slurm", "kube", "settings", "presets", "backbones"),
)
"""Verbs as the help lists them, in the order of a user's work; others follow by name."""

app = typer.Typer(
    name="tcpa",
    cls=Verbs,
    pretty_exceptions_enable=False,
    epilog=(
        "Exit codes: 0 done; 1 trials failed, or a defect; 2 something has to be corrected first; "
        "3 stopped, to be resumed: the same command with --resume goes on."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


def _verbs() -> list[str]:
    """Names of the files in search/commands, as the help lists them."""
    folder = Path(__file__).with_name("commands")
    found = [file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")]
    return sorted(
        found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)
    )


for verb in _verbs():
    command = import_module(f"search.commands.{verb}").command
    if isinstance(command, typer.Typer):  # a verb of several commands
        app.add_typer(command, name=verb)
    else:
        app.command(verb)(command)


def main(run: Callable[..., Any] = app) -> None:
    """Entry point: bad input is one or two sentences on stderr and exit code 2."""
    # First of all: from here on the command line may be seen by others and stored by Ray.
    restart_without_secrets()
    try:
        code = run(prog_name="tcpa", standalone_mode=False)
    except TcpaError as err:
        print(f"error: {one_line(hide(str(err)))}", file=sys.stderr)
        sys.exit(_code_of(err))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(FAILURES)
    except TyperException as err:  # how typer reports a wrong option, argument or verb
        print(f"error: {one_line(explain(err))}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except Exception:  # a defect; its trace may quote addresses
        print(hide(traceback.format_exc()), file=sys.stderr)
        sys.exit(FAILURES)
    sys.exit(code if isinstance(code, int) else DONE)


def _code_of(err: TcpaError) -> int:
    if isinstance(err, FaultError):
        return FAILURES
    return STOPPED if isinstance(err, StoppedError | RunningError) else WRONG_INPUT


def entry() -> None:
    """Run `main` as a process, and end it without freeing object by object what it holds.

    With torch, Ray and MLflow loaded, that takes Python two seconds.
    """
    code: Any = DONE
    try:
        main()
    except SystemExit as end:
        code = end.code
    # os._exit runs none of them: Ray stops its processes there, logs are flushed.
    atexit._run_exitfuncs()
    with suppress(OSError):  # nobody reads on
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    entry()
