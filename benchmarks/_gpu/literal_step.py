"""One training step, forward and backward, against the way the published programs compute it."""

from argparse import Namespace

from benchmarks._gpu.bench import Bench, Finding
from benchmarks.step import compare


def run(bench: Bench) -> None:
    """As `benchmarks.step`, in bf16 on a GPU."""
    options = Namespace(
        img_size=bench.form.step_size,
        device=bench.device,
        dropout=0.0,
        bf16=bench.is_gpu,
        rounds=bench.form.rounds,
        clock="wall",
    )
    for vit in bench.form.step_vits:
        for case in bench.form.step_cases:
            with bench.trying(f"{case}, ViT-{vit}"):
                rows, _ = compare(vit, bench.form.batch, [case], options)
                for row in rows:
                    values = {
                        "ours / literal": row.ratio,
                        "from": row.low,
                        "to": row.high,
                        "ours ms": 1e3 * row.seconds,
                        "literal ms": 1e3 * row.seconds / row.ratio,
                    }
                    bench.tell(Finding(what=row.group, values=values, note=row.notes))
