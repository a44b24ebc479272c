"""What a user reads of a plan before a study starts."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.planning.plan import Plan
from search.planning.sizes import MethodSize, size_text
from search.study.address import below, database_of
from search.tracking.secrets import without_secrets
from search.tune.schedulers.base import can_stop, scheduler_class
from spaces.axes import label
from spaces.space import Space
from spaces.wording import changed_settings, searched, training_text
from tcpa_core.data.base import DataSummary
from tcpa_core.record.scores import TASK, score_of

NARROW = 70
"""Columns of a terminal below which a table has its columns below each other."""

Rows = Sequence[tuple[str, str]]


def show_plan(plan: Plan, console: Console, cluster: str = "") -> None:
    """Print what the study will do, and on which Ray cluster if that is known."""
    console.print(Text(f"plan of {plan.name}", style="bold"))
    print_rows(console, "", _study(plan))
    print_rows(console, "searched" if plan.space.axes else "compared", _searched(plan))
    print_rows(console, "trained", _trained(plan))
    print_methods(console, plan.methods)
    print_rows(console, "data", list(_data(plan)))
    print_rows(console, "backbone", _backbones(plan))
    print_rows(console, "where", [*_places(plan), *([("Ray", cluster)] if cluster else [])])
    for deviation in plan.deviations:
        console.print(f"deviation: {deviation}", markup=False)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", markup=False)


def print_rows(console: Console, title: str, rows: Rows) -> None:
    """Rows of a name and a text, which is wrapped between words behind the names."""
    if not rows:
        return
    if title:
        console.print(Text(f"\n{title}", style="bold"))
    grid = Table.grid(padding=(0, 2))
    # A name is cut by no terminal that leaves room for what stands behind it.
    longest = max(len(name) for name, _ in rows)
    grid.add_column(no_wrap=longest <= console.width // 2)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(Text(f"  {name}"), Text(text))
    console.print(grid)


def _study(plan: Plan) -> Rows:
    space = plan.space
    trials = "until the budget is spent" if plan.num_trials is None else str(plan.num_trials)
    if space.ablation and space.ablation.races:
        trials = f"at most {trials}: rows that are clearly worse get fewer seeds"
    design = space.ablation.design if space.ablation else f"{space.sampler.name} sampler"
    fraction, aliases = space.ablation.fraction() if space.ablation else ("", [])
    design += f": {fraction}" if fraction else ""
    if space.sampler.per:
        design += " for each method, equal budgets"
    stops = space.scheduler
    scheduler = scheduler_class(stops.name).text(stops, plan.most_epochs)
    if stops.name != "none" and not can_stop(space.objective):
        scheduler = f"{stops.name}, which stops none: no objective is measured each epoch"
    # What is not limited is left out: a list of Nones would hide what is.
    budget = {k: v for k, v in space.budget.model_dump().items() if v is not None}
    aim = ", ".join(f"{one.goal} {one.metric}" for one in space.objective)
    return [
        ("kind", f"{'ablation' if space.ablation else 'search'} ({design}, scheduler {scheduler})"),
        ("objective", aim),
        ("trials", trials),
        (
            "distinct points",
            "infinite (continuous axes)" if plan.num_points is None else str(plan.num_points),
        ),
        ("seeds", _seeds(space)),
        *(("aliases" if n == 0 else "", line) for n, line in enumerate(aliases)),
        ("budget", ", ".join(f"{k} {v}" for k, v in budget.items()) or "the whole design"),
        ("cost", plan.cost),
        *([("reused", plan.reusable.text)] if plan.reusable and plan.reusable.text else []),
    ]


def _seeds(space: Space) -> str:
    seeds = ", ".join(map(str, space.seeds))
    if not space.races_seeds:
        return seeds
    return f"raced: {space.seeds[0]} for every point, up to {seeds} for what may be the best"


def _searched(plan: Plan) -> Rows:
    found = searched(plan.space)
    return [(one.path, f"{one.text}{f' ({one.when})' if one.when else ''}") for one in found]


def _trained(plan: Plan) -> Rows:
    """How: what differs from the defaults is named, the usual settings are told anyway."""
    varied = {*plan.space.axes, *(plan.space.ablation.paths() if plan.space.ablation else ())}
    params = plan.space.trials[0].flat()
    rows = [
        ("epochs", f"at most {plan.most_epochs} a trial{_stopped_early(plan)}"),
        ("optimiser", training_text(params, {*varied, "train.epochs"})),
    ]
    changed = changed_settings(plan.space.base)
    task = changed.pop(TASK, None)
    if task is not None:
        rows.insert(0, ("task", f"{task}, scored by {score_of(params).label}"))
    return rows + [(path, label(value)) for path, value in changed.items()]


def _stopped_early(plan: Plan) -> str:
    """How many epochs the scheduler leaves, as a clause to append; "": it stops none."""
    settings, most = plan.space.scheduler, plan.most_epochs
    scheduler = scheduler_class(settings.name)
    if not can_stop(plan.space.objective) or scheduler.least(settings, most) >= most:
        return ""
    expected = scheduler.expected(settings, most)
    if expected is None:
        return f"; how many of them {settings.name} saves is not known before"
    return f"; {settings.name} is meant to train {expected:.3g} of them on average"


def print_methods(console: Console, sizes: Sequence[MethodSize]) -> None:
    """What each chain of methods trains and keeps in memory."""
    console.print(Text("\nmethods", style="bold"))
    if console.width < NARROW:
        print_rows(console, "", [(_named(one, sizes), _trains(one)) for one in sizes])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    table.add_column("  chain")
    for heading in ("trained", "of backbone", "GPU, bf16", "fp32"):
        table.add_column(heading, justify="right")
    for one in sizes:
        memory = [_memory(one, precision) for precision in ("bf16", "fp32")]
        table.add_row(f"  {_named(one, sizes)}", _count(one), f"{one.percent:.3g} %", *memory)
    console.print(table)
    batches = ", ".join(map(str, sorted({one.batch_size for one in sizes})))
    console.print(f"  memory of one trial, about, with batches of {batches}", style="dim")


def _named(one: MethodSize, sizes: Sequence[MethodSize]) -> str:
    on = f" on {one.backbone}" if len({size.backbone for size in sizes}) > 1 else ""
    return f"{'+'.join(one.methods)}{on}"


def _count(one: MethodSize) -> str:
    low, high = one.trainable
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _memory(one: MethodSize, precision: str) -> str:
    found = one.bytes_in(precision)
    if found is not None:
        return size_text(found)
    return "-" if one.memory else "--probe" if one.is_estimated else "not told"


def _trains(one: MethodSize) -> str:
    memory = [f"{_memory(one, p)} in {p}" for p in one.memory]
    return ", ".join([f"{_count(one)} trained ({one.percent:.3g} % of backbone)", *memory])


def _data(plan: Plan) -> Iterator[tuple[str, str]]:
    for config, summary in plan.data.items():
        yield summary.name, _about(summary)
        yield "", f"pictures kept at {plan.pictures[config]} px; {summary.fingerprint[:16]}"
    # What the study will decode before its first trial; none where the cache has all of it.
    if plan.undecoded.images:
        yield "", str(plan.undecoded)


def _about(summary: DataSummary) -> str:
    sizes = ", ".join(f"{n:,} {split}" for split, n in summary.sizes.items())
    each = " of pixels" if summary.pixels else ""
    return f"{sizes}; {len(summary.class_names)} classes{each}"


def _backbones(plan: Plan) -> Rows:
    rows = []
    for text in plan.networks:
        name, _, rest = text.partition(": ")
        rows.append((name, rest))
    return [
        *rows,
        ("weights", plan.fingerprints["weights"]),
        *(("images", f"{found} ({name})") for name, found in plan.preprocessing),
    ]


def _places(plan: Plan) -> Rows:
    return [
        *([("sent", plan.shipped)] if plan.shipped else []),
        ("study folder", str(plan.root / plan.name)),
        *([("storage", below(plan.storage, plan.name))] if plan.storage else []),
        ("MLflow", without_secrets(plan.tracking_uri) or str(database_of(plan.root))),
    ]
