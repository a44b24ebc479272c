"""Training steps of packs, optimiser included: milliseconds, and what sharing a pass gains."""

from benchmarks._gpu.bench import Bench, Finding, StepClock, Value
from benchmarks._gpu.cases import trial
from benchmarks.pack import new_members, train
from tcpa_core.training.pack import Pack


def run(bench: Bench) -> None:
    """Equal members of each method on each backbone."""
    for vit in bench.form.most_members:
        for name in bench.form.methods:
            alone: float | None = None
            for members in bench.form.members:
                with bench.trying(row_name(name, vit, members)):
                    seconds = step_seconds(bench, vit, name, members)
                    speed = members * bench.form.batch / seconds
                    alone = alone or speed
                    values: dict[str, Value] = {
                        "method": name,
                        "vit": vit,
                        "members": members,
                        "step ms": 1e3 * seconds,
                        "images/s": speed,
                        "gain": speed / alone,
                    }
                    bench.tell(Finding(what=row_name(name, vit, members), values=values))


def row_name(method: str, vit: str, members: int) -> str:
    """As tables name a pack."""
    return f"{method}, {vit}, {members} member{'s' * (members > 1)}"


def step_seconds(bench: Bench, vit: str, name: str, members: int) -> float:
    """Of a step in the second epoch of a fresh pack."""
    clock = StepClock(bench.device, bench.form.steps)
    data = bench.data(vit, train=bench.form.steps * bench.form.batch, val=bench.form.batch)
    pack = Pack(bench.backbone(vit), data, on_step=clock)
    # Members of equal sizes: padding is not measured here.
    flat = bench.settings(vit)
    configs = [trial(name, {**flat, "optim.lr": 1e-3 * (1 + m)}) for m in range(members)]
    warm = train(pack, new_members(pack, configs), 1)
    clock.start()
    train(pack, warm, 1)
    return clock.seconds
