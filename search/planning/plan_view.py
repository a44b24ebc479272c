"""What a user reads of a plan before a study starts."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.planning.plan import Plan
from search.study.address import below, database_of
from search.tracking.secrets import without_secrets
from spaces.wording import searched
from tcpa_core.data.base import DataSummary


def show_plan(plan: Plan, console: Console, cluster: str = "") -> None:
    """Print what the study will do, and on which Ray cluster if that is known."""
    space = plan.space
    table = Table(title=f"plan of {plan.name}", show_header=False, title_justify="left")
    for key, value in _rows(plan):
        table.add_row(key, Text(value))
    if cluster:
        table.add_row("Ray", Text(cluster))
    console.print(table)
    if space.axes:
        axes = Table("axis", "range", "when", title_justify="left")
        for one in searched(space):
            axes.add_row(one.path, Text(one.text), Text(one.when))
        console.print(axes)
    for deviation in plan.deviations:
        console.print(f"deviation: {deviation}", markup=False)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", markup=False)


def _rows(plan: Plan) -> list[tuple[str, str]]:
    space = plan.space
    trials = "until the budget is spent" if plan.num_trials is None else str(plan.num_trials)
    if space.ablation and space.ablation.races:
        trials = f"at most {trials}: rows that are clearly worse get fewer seeds"
    design = space.ablation.design if space.ablation else f"{space.sampler.name} sampler"
    fraction, aliases = space.ablation.fraction() if space.ablation else ("", [])
    design += f": {fraction}" if fraction else ""
    if space.sampler.per:
        design += " for each method, equal budgets"
    scheduler = "none" if space.ablation else space.scheduler.name
    # What is not limited is left out: a list of Nones would hide what is.
    budget = {k: v for k, v in space.budget.model_dump().items() if v is not None}
    return [
        ("kind", f"{'ablation' if space.ablation else 'search'} ({design}, scheduler {scheduler})"),
        ("trials", trials),
        (
            "distinct points",
            "infinite (continuous axes)" if plan.num_points is None else str(plan.num_points),
        ),
        ("epochs", f"at most {plan.most_epochs} a trial"),
        ("seeds", ", ".join(map(str, space.seeds))),
        *(("aliases" if n == 0 else "", line) for n, line in enumerate(aliases)),
        ("budget", ", ".join(f"{k} {v}" for k, v in budget.items()) or "the whole design"),
        ("cost", plan.cost),
        *(("memory", text) for text in plan.memory),
        *(("data", _about(summary)) for summary in plan.data.values()),
        *_decoding(plan),
        *(("backbone", text) for text in plan.networks),
        ("weights", plan.fingerprints["weights"]),
        *(("images", f"{found} ({name})") for name, found in plan.preprocessing),
        *([("sent", plan.shipped)] if plan.shipped else []),
        ("study folder", str(plan.root / plan.name)),
        *([("storage", below(plan.storage, plan.name))] if plan.storage else []),
        ("MLflow", without_secrets(plan.tracking_uri) or str(database_of(plan.root))),
    ]


def _decoding(plan: Plan) -> list[tuple[str, str]]:
    """What the study will decode before its first trial; none where the cache has all of it."""
    return [("", str(plan.undecoded))] if plan.undecoded.images else []


def _about(summary: DataSummary) -> str:
    sizes = ", ".join(f"{n:,} {split}" for split, n in summary.sizes.items())
    return (
        f"{summary.name}: {len(summary.class_names)} classes, {sizes} ({summary.fingerprint[:16]})"
    )
