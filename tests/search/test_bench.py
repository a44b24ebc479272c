"""A bench: cells are studies, what is there is not trained again, and the same command goes on."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.driver.placement import Placement
from search.exit_codes import DONE, FAILURES
from search.options import ANEW, NEW, Repeat
from search.study.bench_folder import BenchRecord
from search.study.description import write_description
from search.study.folder import StudyDir
from search.verbs.bench import BenchRun
from search.verbs.bench_standing import bench_lines, standing_of
from spaces.read_suite import load_suite
from tcpa_core.errors import StudyError
from tcpa_core.record.events import Planned, Resumed, Tested
from tests.search.dispatchers import FACTORY

SUITE = """\
name: small
base: {backbone.name: vit_nano, train.epochs: 2}
axes: {optim.lr: {float: [1e-4, 1e-1], log: true}}
datasets: {digits: {data.name: digits}}
methods:
  Linear: {chain: [linear]}
  VPT: {chain: [vpt]}
baseline: VPT
sampler: {name: random}
budget: {trials: 3}
confirm: {top: 2, seeds: 2}
"""
MORE = SUITE.replace("  VPT:", "  Bias: {chain: [bias]}\n  VPT:")
Fill = Callable[..., tuple[int, str]]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Runs a suite's text with stub workers; exit code and what was printed."""

    def run(text: str = SUITE, repeat: Repeat = NEW, **places: Any) -> tuple[int, str]:
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        suite, said = load_suite(str(path)), io.StringIO()
        bench = BenchRun(
            suite=suite,
            cells=suite.cells,
            folder=tmp_path / "studies" / "small",
            placement=Placement(workers=2, slots=3, worker_factory=FACTORY, **places),
            repeat=repeat,
            before=ANEW,
            tracking_uri=None,
            console=Console(file=said, width=300),
            again="tcpa bench suite.yaml",
        )
        return bench.go(), said.getvalue()

    return run


def journals(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/journal.jsonl")}


@pytest.mark.integration
def test_a_bench_grows_by_a_row_goes_on_after_a_kill_and_trains_nothing_twice(
    fill: Fill, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "studies" / "small"
    code, said = fill()
    assert code == DONE
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert [line.split(":")[0] for line in lines] == [
        "[1/2] VPT on digits",
        "[2/2] Linear on digits",
    ]
    assert all("test_accuracy 0." in line and "2 seeds" in line for line in lines)
    # a cell is a search and a confirmation like any other
    search, confirmed = (StudyDir.open(folder, f"digits-vpt{end}") for end in ("", "_confirm"))
    assert len(search.state().trials) == 3 and len(confirmed.state().trials) == 4
    assert confirmed.document()["confirms"]["id"] == search.document()["id"]
    seeds = [one.planned.seed for one in confirmed.state().trials.values()]
    assert sorted(seeds) == [1, 1, 2, 2]
    # the test split is read for one point, once a seed
    tested = [event.trial for event in confirmed.events() if isinstance(event, Tested)]
    assert len(tested) == len(set(tested)) == 2

    before = journals(folder)
    code, said = fill()
    assert code == DONE and "all 2 cells are done" in said
    document = search.document()
    changed = document | {"fingerprints": document["fingerprints"] | {"data": "others"}}
    write_description(search.path, changed)
    with pytest.raises(StudyError, match="data of study 'digits-vpt' changed: recorded others"):
        fill()
    assert fill(repeat=replace(NEW, accept=True))[0] == DONE
    write_description(search.path, document)
    assert journals(folder) == before

    # a row more, all trials of which diverge: its cell alone is trained, and the others stand
    diverging(monkeypatch, "digits-bias")
    code, said = fill(MORE)
    assert code == FAILURES
    assert "[3/3] Bias on digits: failed: digits-bias has 0 completed points" in said
    assert said.count("[") == 1
    after = journals(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"digits-bias"}
    assert standing_of(folder, "digits-bias").state == "failed"
    record = BenchRecord.read(folder)
    assert record is not None and record.methods == ("Linear", "Bias", "VPT")
    bench = record.bench()
    assert [one.method for one in bench.cells] == ["Linear", "Bias", "VPT"]
    assert [one.study.name for one in bench.cells][1] == "digits-bias"
    assert bench.num_seeds == 2 and bench.baseline == "VPT"
    shown = "\n".join(bench_lines(record))
    assert "3 cells: 2 done, 1 failed; 17 trials ended" in shown and "failed: Bias on" in shown

    with pytest.raises(StudyError, match=r"VPT on digits was searched.*vpt.num_prompts.*--name"):
        fill(SUITE.replace("VPT: {", "VPT: {base: {vpt.num_prompts: 7}, "))
    with pytest.raises(StudyError, match="budget.trials: 3 -> 4"):
        fill(SUITE.replace("trials: 3", "trials: 4"))
    with pytest.raises(StudyError, match=r"confirm.seeds: 2 -> 3\. Give the bench another name"):
        fill(SUITE.replace("seeds: 2", "seeds: 3"))
    with pytest.raises(StudyError, match=r"digits-vpt_confirm confirms.*: confirm.top: 2 -> 3\."):
        fill(SUITE.replace("top: 2", "top: 3"))
    assert journals(folder) == after

    # the last events of a confirmation are lost, as when its driver is killed
    cut = folder / "digits-linear_confirm" / "journal.jsonl"
    lines_before = cut.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines_before[:-4]) + lines_before[-4][:30])
    assert standing_of(folder, "digits-linear").state == "confirming"
    code, said = fill()
    assert code == DONE and "[2/2] Linear on digits: test_accuracy" in said
    assert "1 cells of rows or columns that the suite has no more" in said
    events = list(StudyDir.open(folder, "digits-linear_confirm").events())
    assert sum(isinstance(event, Planned) for event in events) == 4
    assert sum(isinstance(event, Resumed) for event in events) == 1


def diverging(monkeypatch: pytest.MonkeyPatch, study: str) -> None:
    """Have every trial of a study diverge."""
    create = StudyDir.create.__func__  # type: ignore[attr-defined]

    def broken(cls: type[StudyDir], root: Path, name: str, *rest: Any) -> StudyDir:
        made: StudyDir = create(cls, root, name, *rest)
        if name == study:
            (made.path / "stub.json").write_text('{"diverges_above": 0}')
        return made

    monkeypatch.setattr(StudyDir, "create", classmethod(broken))
