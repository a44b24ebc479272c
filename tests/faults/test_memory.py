"""Memory that runs out: fewer trials together, then a batch in parts, then what would fit."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tcpa_core.chain import splits_batch
from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import BatchPart, Step
from tcpa_core.streams import Stream
from tcpa_core.training.between_epochs import BetweenEpochs
from tcpa_core.training.by_rows import EVAL_ROWS, ByRows
from tcpa_core.training.commands import Submit
from tcpa_core.training.loss import cross_entropy
from tcpa_core.training.member import Member
from tcpa_core.training.memory import is_out_of_memory
from tcpa_core.training.step import TrainingStep
from tcpa_core.training.worker import Worker
from tests.tcpa_core.test_methods_contract import CHAINS, build, small
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone

ROOT = Path(__file__).parents[2]
SAMPLES = 7
COUPLED: list[tuple[list[str], dict[str, Any]]] = [
    (["mlp"], {"mlp__num_layers": 2, "mlp__dropout": 0.0}),
    (["adaptformer"], {"adaptformer__head_norm": True}),
]
"""Settings in which the samples of a batch meet."""


def gradients(config: TrialConfig, cuts: list[int]) -> dict[str, torch.Tensor]:
    """Of one training step whose batch is cut at some samples."""
    backbone = tiny_backbone("cls")
    model = build(backbone, [config])
    x = images(backbone, samples=SAMPLES)
    labels = torch.arange(SAMPLES) % NUM_CLASSES
    targets = torch.nn.functional.one_hot(labels, NUM_CLASSES)[None].float()
    step = Step(training=True, epochs=(0,), steps=(3,), streams=(Stream(config.seed),))
    stacked = model.tensors.trainable()
    for start, stop in zip([0, *cuts], [*cuts, SAMPLES], strict=True):
        rows = slice(start, stop)
        at = replace(step, part=BatchPart(rows, SAMPLES)) if cuts else step
        out = model(x[:, rows], at)
        loss = cross_entropy(out.logits, targets[:, rows]) + out.penalty
        for share, side in out.side_logits:
            loss = loss + share * cross_entropy(side, targets[:, rows])
        (loss.sum() * (stop - start) / SAMPLES).backward()
    return {name: t.grad for name, t in stacked.items() if t.grad is not None}


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
def test_a_batch_in_parts_has_the_gradients_of_the_whole(chain: list[str]) -> None:
    config = small(chain)
    if not splits_batch(config):
        pytest.skip(f"{'+'.join(chain)}: the samples of a batch meet; see COUPLED")
    whole, parts = gradients(config, []), gradients(config, [2, 5])
    assert whole.keys() == parts.keys() and whole
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("chain", "settings"), COUPLED)
def test_a_batch_whose_samples_meet_is_not_cut(chain: list[str], settings: dict[str, Any]) -> None:
    config = small(chain, **settings)
    assert not splits_batch(config)
    whole, parts = gradients(config, []), gradients(config, [2, 5])
    apart = [(parts[name] - whole[name]).abs().max() > 1e-4 for name in whole]
    assert any(apart), "else it could be cut"


SETTINGS = {
    "methods": ["vpt"], "vpt.num_prompts": 2,
    "train.epochs": 1, "train.batch_size": 600, "train.mixup_alpha": 0.4, "data.flip": True,
}  # fmt: skip


def run(folder: Path, trials: int = 1, settings: Any = SETTINGS) -> list[dict[str, Any]]:
    """What a worker says of a few trials."""
    worker = Worker(folder, folder.parent / "cache", "cpu")
    for seed in range(trials):
        worker.take(Submit(trial=f"t{seed}", params={**settings, "seed": seed}, until_epoch=2))
    events = []
    while not worker.idle:
        events += [event.as_dict() for event in worker.work()]
    return events


def test_a_trial_in_parts_has_the_numbers_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    losses = TrainingStep.losses

    def small_machine(self: TrainingStep, *args: Any) -> Any:
        if self.parts < 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return losses(self, *args)

    monkeypatch.setattr(TrainingStep, "losses", small_machine)
    parts = run(tmp_path / "parts")
    said = [e["text"] for e in parts if e["kind"] == "notice"]
    assert ["trained in 2 parts" in said[0], "trained in 4 parts" in said[1]] == [True, True]
    ends = [next(e for e in events if e["kind"] == "completed") for events in (whole, parts)]
    assert ends[0]["num_epochs"] == ends[1]["num_epochs"] == 1
    for name in ("val_loss", "val_accuracy"):
        assert ends[1][name] == pytest.approx(ends[0][name], rel=1e-3)


def test_after_a_fault_no_member_has_advanced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where memory runs out after the epoch of a neighbour is complete."""
    settings = {"methods": ["linear"], "train.epochs": 2}
    undisturbed = run(tmp_path / "whole", 2, settings)
    after = BetweenEpochs.after_epoch
    faults = iter([True])

    def fail_once(self: BetweenEpochs, member: Member) -> Member:
        if member.trial == "t1" and next(faults, False):
            raise MemoryError
        return after(self, member)

    monkeypatch.setattr(BetweenEpochs, "after_epoch", fail_once)
    events = run(tmp_path / "fault", 2, settings)
    for found in (undisturbed, events):
        epochs = [(e["trial"], e["epoch"]) for e in found if e["kind"] == "epoch"]
        assert sorted(epochs) == [("t0", 1), ("t0", 2), ("t1", 1), ("t1", 2)]
    ends = [{e["trial"]: e for e in found if e["kind"] == "completed"} for found in
            (undisturbed, events)]  # fmt: skip
    for trial in ("t0", "t1"):
        assert ends[1][trial]["val_loss"] == pytest.approx(ends[0][trial]["val_loss"], rel=1e-5)


def test_an_evaluation_that_does_not_fit_takes_fewer_images_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    rows: list[int] = []
    by_rows = ByRows.__call__

    def small_machine(self: ByRows, count: int, members: int, compute: Any) -> Any:
        def computed(turn: slice) -> torch.Tensor:
            rows.append(turn.stop - turn.start)
            if rows[-1] > 50:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return compute(turn)  # type: ignore[no-any-return]

        return by_rows(self, count, members, computed)

    monkeypatch.setattr(ByRows, "__call__", small_machine)
    fewer = run(tmp_path / "fewer")
    assert rows[0] == EVAL_ROWS and [n for n in rows if n > 50] == [256, 128, 64]
    ends = [next(e for e in events if e["kind"] == "completed") for events in (whole, fewer)]
    assert ends[1]["val_loss"] == pytest.approx(ends[0]["val_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_counts_as_lack_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


CODE = """
import json, resource, sys
from pathlib import Path
from tcpa_core.training.commands import Submit
from tcpa_core.training.worker import Worker
folder, settings, trials, extra = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
worker = Worker(folder, folder / "cache", "cpu")
worker.take(Submit(trial="warm", params=settings, until_epoch=0))
worker.work()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + extra * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for seed in range(trials):
    worker.take(Submit(trial=f"t{seed}", params={**settings, "seed": seed}, until_epoch=1))
while not worker.idle:
    for event in worker.work():
        print(json.dumps(event.as_dict()))
"""
"""Trains with so many MiB of address space more than data and weights take."""


def limited(folder: Path, settings: dict[str, Any], trials: int, extra: int) -> list[Any]:
    command = [sys.executable, "-c", CODE, str(folder), json.dumps(settings), str(trials),
               str(extra)]  # fmt: skip
    env = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("settings", "trials", "extra", "says", "ends"),
    [
        ({"methods": ["vpt"], "train.batch_size": 128}, 3, 170, "3 trials do not fit", "completed"),
        ({"methods": ["vpt"], "train.batch_size": 512}, 1, 64, "it is trained in", "completed"),
        (
            {"methods": ["adaptformer"], "adaptformer.head_norm": True, "train.batch_size": 512},
            1, 60, "a batch of 128 fits: lower train.batch_size", "failed",
        ),
    ],
    ids=["pack", "parts", "size that fits"],
)  # fmt: skip
def test_a_process_with_little_memory(
    tmp_path: Path, settings: dict[str, Any], trials: int, extra: int, says: str, ends: str
) -> None:
    events = limited(tmp_path, {**settings, "train.epochs": 1}, trials, extra)
    told = " ".join(e.get("text", "") + e.get("reason", "") for e in events)
    assert says in told
    finals = [e for e in events if e["kind"] in ("completed", "failed")]
    assert [e["kind"] for e in finals] == [ends] * trials
    if ends == "completed":
        assert sum(e["kind"] == "epoch" for e in events) == trials, "nobody loses an epoch"
