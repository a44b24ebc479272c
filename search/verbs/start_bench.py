"""From the options of `tcpa bench` to a bench that runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import join

from rich.console import Console

from search.options import Before, Repeat, Where
from search.study.address import local_folder
from search.study.folder import check_name
from spaces.overrides import parse_override
from spaces.read_suite import load_suite
from spaces.suite import Suite, SuiteCell


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
) -> int:
    """Run what is left of a bench.

    Args:
        plan: Only say what is left and what it will take.
        probe: Train a few steps of each method for that.

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
    return run.show_plan(probe=probe) if plan or probe else run.go()


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
