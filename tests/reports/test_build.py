"""Reports of whole studies, the odd ones included."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import reports
from reports import plots
from reports.build import build_report
from reports.columns import COLUMNS
from reports.records.journal import load_journal
from tcpa_core import plugins
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record.events import encode_line
from tests.reports.studies import (
    cell,
    components,
    epoch,
    final,
    over_datasets,
    planned,
    write,
)

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
    # Student's interval of 0.80, 0.81, 0.82: t(0.975, 2) = 4.3027, times 0.01 / sqrt(3) = 0.0248
    assert "| VPT | 3 | 81.00 ± 2.48 | 76.00 ± 2.48 | baseline | - |" in summary.ablation_markdown
    assert "**84.33 ± 5.17**" in summary.ablation_markdown, "the best is bold"
    assert "<u>83.67 ± 1.43</u>" in summary.ablation_markdown, "the second is underlined"
    latex = (study / "tables" / "ablation.tex").read_text()
    assert r"\toprule" in latex and r"\textbf{84.33 $\pm$ 5.17}" in latex
    assert r"\underline{83.67 $\pm$ 1.43}" in latex
    assert summary.selected is None, "an ablation selects nothing"
    assert "+R+T" in summary.html.read_text()
    assert (study / "report" / "figures" / "factors.svg").is_file()


def test_the_page_says_what_happened_to_images(tmp_path: Path) -> None:
    study = write(tmp_path / "images", [planned(0), final(0, "completed", 0.5)])
    told = {"backbone": "<vit>", "mean": [0.5, 0.4, 0.3], "source": "the model's tag a"}
    document = yaml.safe_load((study / "study.yaml").read_text())
    document["preprocessing"] = [told, "no mapping"]
    (study / "study.yaml").write_text(yaml.safe_dump(document))
    page = build_report(study).html.read_text()
    assert "front of &lt;vit&gt;: mean 0.5, 0.4, 0.3; source the model&#39;s tag a." in page
    assert page.count("front of") == 1


def page_data(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


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
    assert page.count("87.60") == 1, "in the answer"
    columns = {column["name"]: column["values"] for column in page_data(page)["columns"]}
    assert columns["test_accuracy"] == [None, 87.6, None, None, None]
    assert columns["val_accuracy"] == [70, 90, 80, 30, None] and "digest" not in columns
    assert len(pd.read_csv(study / "tables" / "trials.csv")) == 5


def test_columns_tell_their_meaning(tmp_path: Path) -> None:
    study = write(tmp_path / "one", [planned(0), final(0, "completed", 0.5)])
    build_report(study)
    schema = pq.read_schema(study / "tables" / "trials.parquet")
    assert schema.field("val_accuracy").metadata[b"unit"] == b"fraction"
    assert schema.metadata[b"tcpa.schema_version"] == b"4"
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
        "is the same in all points",
    ),
}  # fmt: skip


def test_every_table_and_figure_is_written_in_every_format(tmp_path: Path) -> None:
    events = []
    for n in range(14):
        method = ["vfpt", "tcpa"] if n % 2 else ["vpt"]
        events += [planned(n, methods=method, optim__lr=0.01 * (n + 1)), epoch(n, 1, 0.5)]
        events += [final(n, "completed", 0.5 + 0.02 * n, duration_s=1.0 + n)]
    study = write(tmp_path / "whole", events)
    summary = build_report(study)
    for table in COLUMNS:
        assert (study / "tables" / f"{table}.parquet").is_file()
        assert (study / "tables" / f"{table}.csv").is_file()
    for figure in ("history", "curves", "pareto", "parallel", "importance", "cost", "marginals",
                   "interactions"):  # fmt: skip
        for kind in ("svg", "png", "pdf"):
            assert (study / "report" / "figures" / f"{figure}.{kind}").stat().st_size > 1000
    page = summary.html.read_text()
    assert "vfpt + tcpa" in page and '[\\"vfpt' not in page
    assert set(summary.seconds) >= {"read", "tables", "statistics", "importance", "figures"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex is installed")
def test_latex_compiles(tmp_path: Path) -> None:
    """Awkward names, published rows, and tables over few and over many data sets."""
    seeds = {0: 0.8, 1: 0.82, 2: 0.7}
    events = components({r"a_b & 5% $x^2 {\}~#": seeds, "[<c>]*": seeds, "λ → −1 × ≤": {0: 0.9}})
    for event in events:
        if event["kind"] == "planned":
            event["params"] |= {"data.root": "svhn", "train.selection": "best_test_epoch"}
    build_report(write(tmp_path / "parts", events, "ablation"))
    for name, datasets in (("few", ["a_b", "c"]), ("many", [f"set_{k}" for k in range(12)])):
        values = {d: {"VPT": [0.5, 0.6], "+R": [0.6, 0.64]} for d in datasets}
        build_report(write(tmp_path / name, over_datasets(values), "ablation"))
    parts = [tmp_path / "parts/tables/ablation.tex", tmp_path / "few/tables/across.tex",
             tmp_path / "many/tables/across.tex"]  # fmt: skip
    texts = [part.read_text() for part in parts]
    assert r"\textcolor{gray}{vfpt+tcpa (arXiv:2505.02406 Table 1)}" in texts[0]
    assert r"\rotatebox{90}{set\_11}" in texts[2]
    packages = r"\documentclass{article}\usepackage{booktabs,xcolor,graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text("\n".join([packages, *texts, r"\end{document}"]))
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:]
    assert "Missing character" not in (tmp_path / "t.log").read_text()


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
    assert "components = +R lacks seed 1 (failed)." in summary.notes
    assert any("no interval" in note for note in summary.notes)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    events = components({bad: {0: 0.8}, "a_b & 5%": {0: 0.9}})
    events += [planned(9, tcpa__row=bad), final(9, "failed", reason=bad)]
    study = write(tmp_path / "hostile", events, "ablation")
    page = build_report(study).html.read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert page.count("</script>") == 2, "the data do not end their element"
    assert page_data(page)["columns"][0]["values"][-1] == "00009"
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


def test_missing_level_and_no_baseline_are_said(tmp_path: Path) -> None:
    events = components({"VPT": {0: 0.8, 1: 0.8}, "+R": {}, "+T": {0: 0.9, 1: 0.91}})
    events += [planned(8, seed=s, cells=[cell("components", "+R", 1)]) for s in (0,)]
    summary = build_report(write(tmp_path / "hole", events, "ablation"))
    assert "components = +R lacks seed 0 (planned); seed 1 (not planned)." in summary.notes
    assert "| +R | 0 | - | - | - | - | - | - |" in summary.ablation_markdown.replace("\\", "")
    alone = [e for e in components({"A": {0: 0.8}, "B": {0: 0.9}}) if e["trial"] == "00001"]
    notes = build_report(write(tmp_path / "lone", alone, "ablation")).notes
    assert "components has no baseline level, so it has no differences." in notes


def test_one_seed_has_no_interval_and_the_table_says_so(tmp_path: Path) -> None:
    summary = build_report(write(tmp_path / "s", components({"A": {0: 0.8}, "B": {0: 0.9}}),
                                 "ablation"))  # fmt: skip
    assert "| **90.00 (one seed)** | 85.00 (one seed) | +10.00 | - | - | - |" in (
        summary.ablation_markdown)  # fmt: skip
    assert any("one seed shows no spread" in note for note in summary.notes)
    page = summary.html.read_text()
    assert "one seed: no interval" in (tmp_path / "s/report/figures/factors.svg").read_text()
    assert "not tested" in page and "MDD" in page


def test_an_ablation_without_a_result_says_so(tmp_path: Path) -> None:
    rows = {"A": {0: float("nan"), 1: 0.5}, "B": {0: float("nan")}}
    failed = [planned(9, seed=1, cells=[cell("components", "B", 1)]), final(9, "failed")]
    summary = build_report(write(tmp_path / "n", components(rows) + failed, "ablation"))
    assert "components = A lacks seed 0 (no finite val_accuracy)." in summary.notes
    assert "components = B lacks seed 0 (no finite val_accuracy); seed 1 (failed)." in summary.notes
    assert "| B | 0 | - | - | - | - | - | - |" in summary.ablation_markdown
    none = build_report(write(tmp_path / "e", [], "ablation"))
    assert none.ablation_markdown == "" and "No completed trial yet" in none.html.read_text()


def test_ties_share_the_first_place(tmp_path: Path) -> None:
    same = {0: 0.8, 1: 0.82}
    text = build_report(
        write(tmp_path / "tied", components({"A": same, "B": same}), "ablation")
    ).ablation_markdown
    assert text.count("**81.00") == 2 and "<u>" not in text
    assert "| - | - |" in text, "equal differences cannot be tested"


def test_nan_is_left_out_with_its_reason(tmp_path: Path) -> None:
    events = [planned(0), final(0, "completed", float("nan")), planned(1, optim__lr=0.02)]
    events += [epoch(1, 1, float("nan")), epoch(1, 2, 0.5), final(1, "completed", 0.5)]
    summary = build_report(write(tmp_path / "nan", events))
    assert summary.selected is not None and summary.selected.trials == ("00001",)
    assert any("1 completed trials enter no statistic" in note for note in summary.notes)


def test_what_was_read_is_kept_and_never_stale(tmp_path: Path) -> None:
    events = [
        planned(0),
        epoch(0, 1, 0.4),
        final(0, "completed", 0.5),
        planned(1),
        epoch(1, 1, 0.3),
    ]
    study = write(tmp_path / "kept", events)
    first = load_journal(study)
    assert (study / "tables" / ".read" / "trials.parquet").is_file()
    journal = study / "journal.jsonl"
    whole = journal.read_bytes()
    more = [epoch(1, 1, 0.35), epoch(1, 2, 0.6), final(1, "completed", 0.6)]
    added = b"".join(encode_line({"n": 5 + n, "t": 9.0, **e}) for n, e in enumerate(more))
    journal.write_bytes(whole + added + b'{"n":')
    grown = load_journal(study)
    assert [t.status for t in first.trials.values()] == ["completed", "running"]
    assert [t.status for t in grown.trials.values()] == ["completed", "completed"]
    assert grown.epochs["val_accuracy"].to_pylist() == [0.4, 0.35, 0.6]
    assert any("1 epochs were trained again" in note for note in grown.notes)
    shutil.rmtree(study / "tables")
    fresh = load_journal(study)
    assert (fresh.trials, fresh.epochs, fresh.notes) == (grown.trials, grown.epochs, grown.notes)
    other = [planned(0), epoch(0, 1, 0.4), final(0, "completed", 0.7), *events[3:]]
    lines = [encode_line({"n": n, "t": float(n), **e}) for n, e in enumerate(other)]
    journal.write_bytes(b"".join(lines))
    changed = load_journal(study).trials["00000"].result
    assert changed is not None and changed.val_accuracy == 0.7, "an altered journal is read anew"


def test_what_a_test_split_said_of_an_earlier_training_does_not_count(tmp_path: Path) -> None:
    """Read from the journal, and from what was kept of it."""
    started = {"kind": "started", "trial": "00000", "device": "cpu", "epoch": 0}
    tested = {"kind": "tested", "trial": "00000", "test_loss": 1.0, "test_accuracy": 0.4}
    events = [planned(0), started, final(0, "completed", 0.5), tested]
    for again, expected in (([], 0.4), ([started], None), ([final(0, "completed", 0.6)], None)):
        events += again
        study = write(tmp_path / str(len(events)), events)
        for _ in range(2):
            (found,) = reports.load(study).trials["test_accuracy"].astype(object)
            assert (None if pd.isna(found) else found) == expected


def test_load_gives_frames(tmp_path: Path) -> None:
    study = write(tmp_path / "frames", components(TABLE), "ablation")
    found = reports.load(study)
    assert len(found.trials) == 9 and len(found.epochs) == 18 and found.settings[0] == "methods"
    assert found.used["val_accuracy"].max() == pytest.approx(0.86)


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not exist"):
        build_report(tmp_path / "nowhere")


def test_every_plot_file_is_a_plot() -> None:
    for name in plugins.names(plots.__name__):
        module = plugins.load(plots.__name__, name)
        assert module.TITLE and callable(module.prepare) and callable(module.draw)


def test_a_report_tells_how_far_it_is(tmp_path: Path) -> None:
    study = write(tmp_path / "parts", components(TABLE), "ablation")
    told: list[tuple[str, int, int]] = []
    build_report(study, progress=lambda *what: told.append(what))
    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert steps[0] == "read" and {"tables", "statistics", "importance", "page"} <= set(steps)
    drawn = [(done, total) for step, done, total in told if step == "figures" and total]
    assert drawn == [(i, len(drawn)) for i in range(len(drawn))] and len(drawn) > 1
