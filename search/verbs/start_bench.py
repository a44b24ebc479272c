"""From the options of `tcpa bench` to a bench that runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join

from rich.console import Console

from search.options import NEW, Before, Common, Repeat, Where
from search.study.address import local_folder
from search.study.folder import check_name
from spaces.overrides import parse_override
from spaces.read_suite import load_suite
from spaces.suite import Suite, SuiteCell
from tcpa_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Asked:
    """Which bench a command asks for."""

    source: str
    """A YAML file, or the name of a shipped suite."""
    name: str | None
    """Of the bench; None: that of the suite."""
    root: Path
    data: Path | None
    """Folder of the data sets, as of `load_suite`."""
    settings: tuple[str, ...]
    """As of `--set`."""
    trials: int | None = None
    """Replaces budget.trials."""
    methods: str = ""
    """Rows to fill, with commas between them; "": all."""
    datasets: str = ""
    """Columns to fill."""

    def suite(self) -> Suite:
        """The suite.

        Raises:
            ConfigError: As `load_suite`.
        """
        settings = dict(parse_override(text) for text in self.settings)
        if self.trials is not None:
            settings["budget.trials"] = self.trials
        return load_suite(self.source, settings, self.data)

    def cells(self, suite: Suite) -> tuple[SuiteCell, ...]:
        """The cells that are asked for.

        Raises:
            ConfigError: There is no such row or column.
        """
        return suite.chosen(_listed(self.methods), _listed(self.datasets))


@dataclass(frozen=True, slots=True)
class How:
    """How the studies of a bench are run, as of `tcpa search`."""

    where: Where
    repeat: Repeat
    before: Before
    tracking_uri: str | None


def start_bench(
    asked: Asked,
    how: How,
    console: Console,
    *,
    plan: bool = False,
    probe: bool = False,
    pilots: Sequence[str] | None = None,
) -> int:
    """Run what is left of a bench.

    Args:
        plan: Only say what is left and what it will take.
        probe: Train a few steps of each method for that.
        pilots: Of a plan alone: as of `BenchRun.show_plan`.

    Returns:
        The exit code, as of `BenchRun.go`.
    """
    suite, placement = asked.suite(), how.where.placement()
    cells = asked.cells(suite)
    name = asked.name or suite.name
    check_name(name)
    from search.verbs.bench import BenchRun  # loads Ray and torch

    run = BenchRun(
        suite=suite,
        cells=cells,
        folder=local_folder(asked.root) / name,
        placement=placement,
        repeat=how.repeat,
        before=how.before,
        tracking_uri=how.tracking_uri,
        console=console,
        again=join(["tcpa", *sys.argv[1:]]),
    )
    return run.show_plan(probe=probe, pilots=pilots) if plan or probe else run.go()


def plan_suite(
    common: Common,
    data: Path | None,
    before: Before,
    console: Console,
    *,
    probe: bool,
    as_json: bool,
    pilots: Sequence[str] | None,
) -> None:
    """Show the plan of a suite, as `tcpa bench --plan` does, and what its design will see.

    Raises:
        ConfigError: An option of a space's plan that a suite's has not.
    """
    if as_json:
        raise ConfigError("--json: the plan of a suite is no document; leave it out.")
    if common.storage:
        raise ConfigError("--storage: a bench lies below --root; leave it out.")
    settings = tuple(common.set_ or ())
    asked = Asked(common.space, common.study, common.root, data, settings, common.trials)
    how = How(Where(), NEW, before, None)
    start_bench(asked, how, console, plan=True, probe=probe, pilots=pilots)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
