"""What a planned design will see, from studies that lie below the same root or are named."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from reports.power import Design, Power, power_of
from search.planning.plan import Plan
from search.study.working_copy import opened
from spaces.suite import Suite, SuiteCell
from tcpa_core.record import files


def power_of_plan(plan: Plan, pilots: Sequence[str], storage: str | None) -> Power:
    """What the design of a plan will see.

    Args:
        pilots: Names of earlier studies; (): all that lie below the plan's root.

    Raises:
        StudyError: A named study is missing, or tells nothing.
    """
    space = plan.space
    design = Design.of(
        space.objective[0].metric,
        [config.flat() for config in space.trials],
        len(space.seeds),
        _comparisons(plan),
    )
    return _power(design, plan.root, pilots, storage)


def power_of_bench(
    suite: Suite, cells: Sequence[SuiteCell], root: Path, pilots: Sequence[str]
) -> Power:
    """What the confirmations of a bench will see, of its methods against the baseline.

    Args:
        cells: That it has.
        root: Below which it lies, as earlier studies do.
        pilots: As of `power_of_plan`.

    Raises:
        StudyError: As `power_of_plan`.
    """
    design = Design.of(
        suite.given[0].space.objective[0].metric,
        [one.space.trials[0].flat() for one in cells],
        suite.confirm.seeds,
        max(1, len(suite.methods) - 1),
    )
    return _power(design, root, pilots, None)


def show_power(power: Power, console: Console) -> None:
    """Print it below a plan."""
    console.print("\npower", style="bold")
    for line in power.lines():
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _power(design: Design, root: Path, pilots: Sequence[str], storage: str | None) -> Power:
    if pilots:
        named = [opened(root, name, storage).path for name in pilots]
        return power_of(design, named, is_named=True)
    return power_of(design, _below(root), is_named=False)


def _comparisons(plan: Plan) -> int:
    """Settings that the design compares with one other on a data set."""
    space = plan.space
    if space.ablation is None:
        methods = space.axes.get("methods")
        return max(1, len(methods.ends()) - 1) if methods else 1
    num_sets = max(1, len(plan.data))
    return max(1, (plan.num_points or 1) // num_sets - 1)


def _below(root: Path) -> list[Path]:
    """Studies of a root, and of the benches in it."""
    found = [*root.glob(f"*/{files.DESCRIPTION}"), *root.glob(f"*/*/{files.DESCRIPTION}")]
    return sorted(path.parent for path in found if (path.parent / files.JOURNAL).is_file())
