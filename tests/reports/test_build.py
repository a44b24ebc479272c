"""Reports of whole studies, the odd ones included."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from reports import plots
from reports.build import build_report
from reports.load import load_journal
from tcpa_core import plugins
from tcpa_core.errors import RecordError, StudyError
from tests.reports.studies import cell, components, epoch, final, planned, write

TABLE = {
    "VPT": {0: 0.80, 1: 0.82, 2: 0.81},
    "+R": {0: 0.83, 1: 0.84, 2: 0.84},
    "+R+T": {0: 0.82, 1: 0.85, 2: 0.86},
}


def test_components_become_a_table(tmp_path: Path) -> None:
    study = write(tmp_path / "parts", components(TABLE), "ablation")
    summary = build_report(study)
    rows = pd.read_parquet(study / "tables" / "ablation.parquet")
    rows = rows[rows["metric"] == "val_accuracy"].set_index("level")
    assert list(rows.index) == ["VPT", "+R", "+R+T"] and (rows["n"] == 3).all()
    assert rows.loc["+R", "diff"] == pytest.approx(0.08 / 3)
    assert rows.loc["VPT", "is_baseline"] and pd.isna(rows.loc["VPT", "diff"])
    assert "| VPT | 3 | 81.00 ± 1.00 | 76.00 ± 1.00 | baseline | - |" in summary.ablation_markdown
    assert "**84.33 ± 2.08**" in summary.ablation_markdown, "the best is bold"
    latex = (study / "tables" / "ablation.tex").read_text()
    assert r"\toprule" in latex and r"\textbf{84.33 $\pm$ 2.08}" in latex
    assert r"\underline{83.67 $\pm$ 0.58}" in latex
    assert summary.selected is None, "an ablation selects nothing"
    assert "+R+T" in summary.html.read_text()
    assert (study / "report" / "figures" / "factors.svg").is_file()


def test_search_selects_on_val_and_shows_its_test_only(tmp_path: Path) -> None:
    events = []
    for n, value in enumerate([0.7, 0.9, 0.8]):
        events += [planned(n, optim__lr=0.01 * (n + 1)), epoch(n, 1, value)]
        events += [final(n, "completed", value)]
    events += [{"kind": "tested", "trial": "00001", "test_loss": 0.5, "test_accuracy": 0.876}]
    events += [planned(3, optim__lr=0.05), epoch(3, 1, 0.3), final(3, "pruned", 0.3)]
    events += [planned(4, optim__lr=0.06), epoch(4, 1, 0.4)]
    study = write(tmp_path / "hunt", events)
    summary = build_report(study)
    assert summary.selected is not None and summary.selected.trials == ("00001",)
    assert summary.selected.test_accuracy == pytest.approx(0.876)
    assert summary.counts == {"completed": 3, "pruned": 1, "running": 1}, "nothing is dropped"
    assert any("optimistic" in note for note in summary.notes)
    page = summary.html.read_text()
    assert page.count("87.60") == 2, "once in the answer, once in the trial's row"
    assert len(pd.read_csv(study / "tables" / "trials.csv")) == 5


def test_columns_tell_their_meaning(tmp_path: Path) -> None:
    study = write(tmp_path / "one", [planned(0), final(0, "completed", 0.5)])
    build_report(study)
    schema = pq.read_schema(study / "tables" / "trials.parquet")
    assert schema.field("val_accuracy").metadata[b"unit"] == b"fraction"
    assert schema.metadata[b"tcpa"] == b'{"schema": 1}'
    assert "optim.lr" in schema.names


ODD = {
    "empty": ([], "nothing to select"),
    "one trial": ([planned(0), final(0, "completed", 0.5)], "Importance needs 10"),
    "all failed": ([planned(0), final(0, "failed", reason="loss is nan")], "loss is nan"),
    "only planned": ([planned(0)], "1 planned"),
    "nan metric": ([planned(0), final(0, "completed", float("nan"))], "1 completed"),
    "ties": (
        [e for n in (0, 1) for e in (planned(n, optim__lr=0.1 * n + 0.1),
                                     final(n, "completed", 0.5))],
        "00000",
    ),
    "constant": (
        [e for n in range(12) for e in (planned(n, optim__lr=0.01 * n + 0.01),
                                        final(n, "completed", 0.5))],
        "is the same in all trials",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_studies_give_a_report(name: str, tmp_path: Path) -> None:
    events, sentence = ODD[name]
    summary = build_report(write(tmp_path / "odd", events))
    assert sentence in summary.html.read_text()


def test_missing_seed_is_named(tmp_path: Path) -> None:
    events = components({"VPT": {0: 0.8, 1: 0.8}, "+R": {0: 0.9}})
    events += [planned(9, seed=1, cells=[cell("components", "+R", 1)], tcpa__row="+R")]
    events += [final(9, "failed", reason="out of memory")]
    summary = build_report(write(tmp_path / "gap", events, "ablation"))
    assert "components = +R lacks seeds 1." in summary.notes
    assert any("no interval" in note for note in summary.notes)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    events = components({bad: {0: 0.8}, "a_b & 5%": {0: 0.9}})
    events += [planned(9, tcpa__row=bad), final(9, "failed", reason=bad)]
    study = write(tmp_path / "hostile", events, "ablation")
    page = build_report(study).html.read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert r"a\_b \& 5\%" in (study / "tables" / "ablation.tex").read_text()


def test_torn_tail_is_said_and_damage_refused(tmp_path: Path) -> None:
    study = write(tmp_path / "torn", [planned(0), final(0, "completed", 0.5)])
    journal = study / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"kind":"epo')
    assert any("torn" in note for note in load_journal(study).notes)
    journal.write_bytes(whole.replace(b"completed", b"complexed"))
    with pytest.raises(RecordError, match="journal.jsonl:2"):
        build_report(study)


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not exist"):
        build_report(tmp_path / "nowhere")


def test_every_plot_file_is_a_plot() -> None:
    for name in plugins.names(plots.__name__):
        module = plugins.load(plots.__name__, name)
        assert module.TITLE and callable(module.prepare) and callable(module.draw)
