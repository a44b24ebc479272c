"""Hostile input: readers answer in our words, and what is written out stays text."""

import csv
import io
import json
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from benchmarks import hostile
from benchmarks.hostile_targets import all_targets
from reports.build import build_report
from reports.page.html import write_html
from reports.page.markup import escape_markdown, escape_tex, frame_markdown
from reports.parquet import read_table
from reports.records.journal import load_journal
from reports.records.study import Study
from search import cli
from search.study.folder import StudyDir
from search.study.reuse_roots import reuse_roots
from search.study.sealed import opened_bundle
from search.terminal import MAX_SHOWN
from spaces.load import load_space
from spaces.read_suite import is_suite, load_suite
from spaces.reader import read_text
from tcpa_core.data._decode import decode
from tcpa_core.data._listing import relative_key
from tcpa_core.data.base import dataset_fingerprint, load_dataset
from tcpa_core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    RecordError,
    StudyError,
    TcpaError,
    WeightsError,
)
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.record.events import Ended, Notice, decode_line, encode_line
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.trained import load_trained
from tests.reports.studies import components, final, planned, write

IMG = "<img src=x onerror=alert(1)>"
INPUT = r"\input{/etc/passwd}"
PIPES = "a|b\n| c |\r\n---"
FORMULA = "=HYPERLINK(1)"

quick = settings(max_examples=60, deadline=None)


def test_500_hostile_inputs_meet_our_errors_only() -> None:
    rows = hostile.run(500)
    defects = [f"{row.target}: {what}" for row in rows for what, _ in row.defects]
    assert not defects, "\n".join(defects)
    assert sum(row.inputs for row in rows) >= 500
    assert sum(row.refused for row in rows) > 300
    assert max(row.peak_mib for row in rows) < 1500


class Bomb:
    """A pickle that would leave a trace if anybody opened it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.filterwarnings("ignore")
def test_no_reader_runs_what_it_reads(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    objects, torch_file = io.BytesIO(), io.BytesIO()
    np.savez(objects, a=np.array([Bomb(trace)], dtype=object), allow_pickle=True)
    torch.save({"head.weight": Bomb(trace)}, torch_file)
    attacks = [
        pickle.dumps(Bomb(trace)),
        objects.getvalue(),
        torch_file.getvalue(),
        f"name: !!python/object/apply:os.mknod ['{trace}']\n".encode(),
        f"name: $(touch {trace})\n".encode(),
    ]
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists(), "the bomb works"
    trace.unlink()
    (tmp_path / "readers").mkdir()
    for target in all_targets(tmp_path / "readers"):
        for attack in attacks:
            with suppress(TcpaError):
                target.read(attack)
            assert not trace.exists(), target.name


# What is read


@quick
@given(st.binary(max_size=60))
def test_any_bytes_are_no_journal_line(data: bytes) -> None:
    with pytest.raises(RecordError, match="torn or altered"):
        decode_line(data, "journal.jsonl:1")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(-(2**60), 2**60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(st.dictionaries(st.sampled_from(["trial", "epoch", "params", "reason", "x", "text"]), JSON))
def test_any_event_is_written_and_read_back_or_refused(event: dict[str, Any]) -> None:
    line = encode_line({"kind": "notice", "t": 0, **event})
    try:
        again = decode_line(line, "journal.jsonl:1")
    except RecordError as err:
        assert str(err).startswith("journal.jsonl:1: ")
    else:
        assert isinstance(again, Notice) and again.text == event.get("text", "")
        assert decode_line(encode_line(again.as_dict()), "x") == again


@quick
@given(st.data())
def test_one_changed_byte_of_a_line_is_found(data: st.DataObject) -> None:
    line = encode_line({"kind": "epoch", "trial": "00000", "epoch": 1, "val_loss": 0.25})
    at = data.draw(st.integers(0, len(line) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != line[at]))
    with pytest.raises(RecordError, match="torn or altered"):
        decode_line(line[:at] + bytes([byte]) + line[at + 1 :], "x")


def test_a_message_with_a_file_name_that_is_no_text_is_written() -> None:
    event = {"kind": "failed", "t": 0, "trial": "1", "status": "failed"}
    line = encode_line({**event, "reason": "a\udce4.png"})
    again = decode_line(line, "x")
    assert isinstance(again, Ended) and again.result.reason == "a?.png"


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"kind": "planned", "trial": "1"}, "has no 'params'"),
        ({**planned(1), "labels": {"cells": 1}}, "'cells' among the labels must be a list"),
        ({**planned(1), "labels": {"cells": [1]}}, "'cells' among the labels must be a list"),
        ({"kind": "epoch", "trial": "1"}, "has no 'epoch'"),
        ({"kind": "finished", "t": None}, "'t' of the 'finished' event is a NoneType"),
        ({"kind": "epoch", "trial": "1", "epoch": "1"}, "'epoch' of .* is a str"),
        ({"kind": "epoch", "trial": "1", "epoch": 10**30}, "'epoch' of .* cannot be used"),
        ({"kind": "failed", "trial": "1", "status": "failed", "reason": 3}, "'reason' of .* a int"),
        ({"kind": "failed", "trial": "../1", "status": "failed"}, r"'\.\./1' is no name"),
    ],
)
def test_a_forged_event_is_refused(event: dict[str, Any], says: str) -> None:
    with pytest.raises(RecordError, match=says):
        decode_line(encode_line({"t": 0.0, **event}), "x")


def forged(body: bytes) -> bytes:
    """A line of this JSON whose checksum is right."""
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


@pytest.mark.parametrize(
    "value", ["[" * 100_000 + "]" * 100_000, "9" * 5000, '"\\ud800"'], ids=["deep", "long", "half"]
)
def test_json_that_no_table_could_hold_is_refused(value: str) -> None:
    line = forged(b'{"kind":"notice","t":0,"text":' + value.encode() + b"}")
    with pytest.raises(RecordError, match="is no JSON object"):
        decode_line(line, "x")


def space(text: str) -> Any:
    return read_text(text, "a.yaml", Path("/somewhere")).data


@quick
@given(JSON.filter(lambda value: value == value))
def test_values_in_yaml_are_read_back_or_refused(value: Any) -> None:
    try:
        found = space(yaml.safe_dump({"k": value}, allow_unicode=True))
    except ConfigError as err:
        assert str(err).startswith("a.yaml")
    else:
        assert found.keys() == {"k"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('k: "\\U00110000"', r"chr\(\) arg"),
        ('k: "\\ud800"', r"character '\\ud800' is not allowed, not even escaped"),
        ('k: "\\0"', r"character '\\x00' is not allowed"),
        ('"\\e[31m": 1', r"line 1: character '\\x1b' is not allowed"),
        ("k: " + "[" * 100_000, "nested more than 20"),
    ],
)
def test_what_yaml_can_only_escape_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        space(text)


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    "text",
    [LAUGHS, "schema: 1\nkind: search\nspace: &a {b: *a}\n", "[" * 100_000, "k: 2024-02-30",
     "schema: 1\nkind: search\nspace: x\n", "schema: 1\nkind: search\nspace: {objective: [1]}\n",
     "k: " + "9" * 5000, "k: !!python/object/apply:os.system ['true']", "? [a]\n: 1\n"],
    ids=["laughs", "circle", "deep", "date", "space", "goal", "long", "tag", "key"],
)  # fmt: skip
def test_a_hostile_description_of_a_study_is_refused(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(text)
    study = StudyDir.open(folder.parent, "mine")
    for read in (study.document, lambda: Study.read(folder)):
        with pytest.raises(
            RecordError, match=r"study.yaml.* (is not a valid study description|kind must)"
        ):
            read()


def test_a_damaged_kept_copy_of_a_journal_is_not_used(tmp_path: Path) -> None:
    study = write(tmp_path / "mine", components({"a": {0: 0.5}, "b": {0: 0.6}}))
    truth = load_journal(study)
    for path in (study / "tables" / ".read").iterdir():
        whole = path.read_bytes()
        for at in range(0, len(whole), 100):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
            found = load_journal(study)
            assert found.trials == truth.trials and found.epochs.equals(truth.epochs), (path, at)


@quick
@given(st.text(max_size=30))
def test_a_path_of_a_list_stays_in_its_folder(text: str) -> None:
    try:
        key = relative_key(text, "list:1")
    except DataError as err:
        assert repr(text) in str(err)
    else:
        assert (Path("/root") / key).resolve().is_relative_to("/root")
        assert not any(ord(c) < 32 for c in key)


def lists(root: Path, train: str, classes: str = "") -> DataConfig:
    """A VTAB task with this train list."""
    root.mkdir()
    texts = {"train800.txt": train, "val200.txt": "c.png 0\n", "test.txt": "d.png 1\n"}
    for name, text in {**texts, **({"classes.txt": classes} if classes else {})}.items():
        (root / name).write_text(text)
    for name in "abcd":
        Image.new("RGB", (2, 2)).save(root / f"{name}.png")
    return DataConfig(name="vtab1k", root=str(root))


def test_a_class_number_cannot_ask_for_a_billion_classes(tmp_path: Path) -> None:
    cfg = lists(tmp_path / "t", "a.png 999999999\nb.png 0\n")
    with pytest.raises(DataError, match="highest class in all lists is 999999999, .* 4 images"):
        dataset_fingerprint(cfg, cache_dir=tmp_path)


def test_a_class_named_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    names = "".join(f"class {i}\n" for i in range(100_000)) + "class 99999\n"
    cfg = lists(tmp_path / "t", "a.png 0\nb.png 1\n", names)
    with pytest.raises(DataError, match="names class 'class 99999' twice"):
        dataset_fingerprint(cfg, cache_dir=tmp_path)


def test_a_list_that_is_a_pipe_or_endless_is_not_read(tmp_path: Path) -> None:
    cfg = lists(tmp_path / "t", "")
    path = tmp_path / "t" / "train800.txt"
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="train800.txt is a folder or a device"):
        dataset_fingerprint(cfg, cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["\\ud800.png", "../../a.png", "/etc/passwd.png", "a\\u0000.png"])
def test_a_name_in_a_split_file_cannot_leave_or_break_paths(name: str, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.json").write_text(f'{{"{name}": 1}}')
    with pytest.raises(DataError, match="image path must be relative"):
        dataset_fingerprint(DataConfig(name="fgvc", root=str(tmp_path)), cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["~nobody_here/x", "a" * 5000, "a\0b", "a/" * 3000])
def test_a_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file and no preset"):
        load_space(name)
    with pytest.raises(ConfigError, match="no file and no suite"):
        load_suite(name)
    assert not is_suite(name)
    with pytest.raises(StudyError, match="is no folder"):
        reuse_roots([Path(name)])
    with pytest.raises(StudyError), opened_bundle(Path(name)):
        pass
    with pytest.raises(DataError, match=r"data\.root=.* must be a folder"):
        dataset_fingerprint(DataConfig(name="folder", root=name), cache_dir=tmp_path)
    with pytest.raises(WeightsError, match=r"backbone\.weights: no file"):
        load_backbone(BackboneConfig(name="vit_nano", weights=name))
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps({f"{'a' * 5000}.png": 1}))
    with pytest.raises(DataError, match="no image of train.json"):
        dataset_fingerprint(DataConfig(name="fgvc", root=str(tmp_path)), cache_dir=tmp_path)


# Links and names of folders


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Class folders with two images each."""
    for split in ("train", "val", "test"):
        for label in "ab":
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (4, 4), (9 * i, ord(label), len(split))).save(folder / f"{i}.png")
    return tmp_path / "data"


def fingerprint(root: Path) -> str:
    cfg = DataConfig(name="folder", root=str(root))
    return dataset_fingerprint(cfg, cache_dir=root.parent / "cache")


def test_links_to_images_and_folders_are_followed(tree: Path) -> None:
    plain = fingerprint(tree)
    moved = tree.parent / "elsewhere"
    (tree / "train" / "a").rename(moved)
    (tree / "train" / "a").symlink_to(moved)
    (tree / "test" / "b" / "0.png").rename(moved.parent / "one.png")
    (tree / "test" / "b" / "0.png").symlink_to(moved.parent / "one.png")
    assert fingerprint(tree) == plain


@pytest.mark.parametrize("target", [".", "..", "../b", "../.."])
def test_a_folder_that_is_reached_twice_is_refused(tree: Path, target: str) -> None:
    (tree / "train" / "a" / "x").symlink_to(target)
    (tree / "train" / "a" / "y").symlink_to(target)
    with pytest.raises(DataError, match=r"is the same folder as train/|does not end like an image"):
        fingerprint(tree)


def test_a_ladder_of_links_ends_at_once(tree: Path) -> None:
    for i in range(40):  # 2^40 ways down
        (tree.parent / "up" / str(i)).mkdir(parents=True)
        for name in "xy":
            (tree.parent / "up" / str(i) / name).symlink_to(tree.parent / "up" / str(i + 1))
    (tree.parent / "up" / "40").mkdir()
    (tree / "train" / "a" / "up").symlink_to(tree.parent / "up" / "0")
    with pytest.raises(DataError, match=r"is the same folder as|deeper than 32 folders"):
        fingerprint(tree)


def test_a_link_to_the_root_of_the_disk_ends_at_the_first_file(tree: Path) -> None:
    (tree / "train" / "a" / "x").symlink_to("/etc")
    with pytest.raises(DataError, match="does not end like an image"):
        fingerprint(tree)


def test_a_folder_whose_name_is_no_text_can_be_used(tree: Path) -> None:
    odd = tree.parent / "caf\udce9"
    tree.rename(odd)
    for split in ("train", "val", "test"):
        (odd / split / "a").rename(odd / split / IMG.replace("/", ""))
    cfg = DataConfig(name="folder", root=str(odd))
    found = load_dataset(cfg, 8, cache_dir=odd.parent / "cache")
    assert found.class_names == (IMG, "b")


@quick
@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="^here: "):
        decode(data, "here")


# Checkpoints and weights


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e5m2, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_of_every_kind_are_kept(tmp_path: Path, kind: torch.dtype, shape: Any) -> None:
    path = tmp_path / "last.safetensors"
    tensor = torch.ones(shape).to(kind)
    save_checkpoint(path, {"a": tensor}, {})
    found, _ = load_checkpoint(path)
    assert found["a"].dtype == kind and torch.equal(found["a"].float(), tensor.float())


@pytest.mark.parametrize("info", [{}, {"config": 3}, {"config": {}, "classes": 2}])
def test_a_checkpoint_without_its_parts_is_refused(tmp_path: Path, info: dict[str, Any]) -> None:
    save_checkpoint(tmp_path / "best.safetensors", {"a": torch.zeros(2)}, info)
    with pytest.raises(CheckpointError, match="lacks the settings or the classes"):
        load_trained(tmp_path / "best.safetensors")


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (16777216,), }"
        content = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + head.ljust(117) + b"\n"
        archive.writestr("a.npy", content + bytes(1 << 26))


def expanded(path: Path) -> None:
    torch.save({"a": torch.zeros(1, dtype=torch.bfloat16).expand(10**6, 10**6)}, path)


def no_names(path: Path) -> None:
    torch.save({1: torch.zeros(2)}, path)


def no_mapping(path: Path) -> None:
    torch.save([torch.zeros(2)], path)


def sparse(path: Path) -> None:
    torch.save({"a": torch.eye(2).to_sparse()}, path)


@pytest.mark.parametrize(
    ("make", "suffix"),
    [(bomb, "npz"), (bomb, "pth"), (expanded, "pth"), (no_names, "pth"), (no_mapping, "pth"),
     (sparse, "pth")],
)  # fmt: skip
def test_weights_that_are_a_trap_are_refused(
    tmp_path: Path, make: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"w.{suffix}"
    make(path)
    with pytest.raises(WeightsError, match=r"cannot be read as weights"):
        load_backbone(BackboneConfig(name="vit_nano", weights=str(path)))


def test_weights_of_another_layout_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"Transformer/encoder_norm/scale": np.ones(3, np.float32)})
    save_file({"pos_embed": torch.zeros(3)}, tmp_path / "w.safetensors")
    for name in ("w.npz", "w.safetensors"):
        with pytest.raises(WeightsError, match=rf"{name} (has no layout|does not fit)"):
            load_backbone(BackboneConfig(name="vit_nano", weights=str(tmp_path / name)))


# The command line


@quick
@given(st.text(max_size=70))
def test_a_study_name_is_one_plain_file_name(name: str) -> None:
    root = Path("/nonexistent")
    try:
        path = StudyDir.check_free(root, name)
    except StudyError as err:
        assert repr(name) in str(err) or "--root" in str(err)
    else:
        assert path == root / name and re.fullmatch("[a-z0-9_-]{1,64}", name)


def test_messages_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tcpa", "plan", "quickstart", "--set", "\x1b[2J\n\u202e=["])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.rstrip("\n").isprintable()


def test_a_message_does_not_repeat_a_whole_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("name: " + "x" * 100_000)
    monkeypatch.setattr("sys.argv", ["tcpa", "plan", str(tmp_path / "a.yaml")])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert len(capsys.readouterr().err) < MAX_SHOWN + 50


# What is written


LEVELS = (IMG, INPUT, PIPES, FORMULA, "$x_1$", "[0]", "*", "+TCPA", "a & b % # ~ ^")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ablation whose levels, reasons, warnings, devices and name are hostile."""
    events = components({level: {0: 0.5, 1: 0.6, 2: 0.7} for level in LEVELS})
    count = sum(event["kind"] == "planned" for event in events)
    for event in events:
        if event["kind"] == "completed":
            event |= {"warnings": [IMG], "device": FORMULA}
    events += [planned(count), final(count, "failed", reason=f"{FORMULA} {IMG}")]
    study = write(tmp_path_factory.mktemp("s") / "mine", events, kind="ablation")
    document = yaml.safe_load((study / "study.yaml").read_text())
    document |= {"name": f"{IMG}</script>", "git": IMG, "versions": {IMG: IMG}}
    (study / "study.yaml").write_text(yaml.safe_dump(document))
    build_report(study)
    return study


def test_the_page_shows_markup_as_text(report: Path) -> None:
    page = (report / "report" / "report.html").read_text()
    assert "<img src=x" not in page
    assert page.count("</script>") == 2  # ours
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert write_html.__module__ == "reports.page.html"


def test_latex_runs_nothing(report: Path) -> None:
    text = (report / "tables" / "ablation.tex").read_text()
    assert r"\input" not in text and r"\textbackslash{}input\{/etc/passwd\}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(LEVELS), "a line break in a name made another row"
    assert all(re.sub(r"\\[&%]", "", row).count("&") == 6 for row in rows)
    assert not any(row.startswith(("[", "*")) for row in rows)


def test_markdown_keeps_its_cells(report: Path) -> None:
    text = (report / "tables" / "ablation.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(LEVELS)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 9 for row in rows)
    assert not re.search(r"(?<!\\)<img", text)


def test_csv_has_no_formulas_and_parquet_the_text_itself(report: Path) -> None:
    with (report / "tables" / "ablation.csv").open(newline="") as file:
        levels = [row["level"] for row in csv.DictReader(file)]
    assert "'=HYPERLINK(1)" in levels and "'+TCPA" in levels
    assert not [text for text in levels if text[0] in "=+-@\t\r"]
    true = read_table(report / "tables", "ablation")
    assert set(true["level"].to_pylist()) == set(LEVELS)
    assert json.loads(true.schema.metadata[b"tcpa.study"])["git"] == IMG
    trials = pd.read_csv(report / "tables" / "trials.csv")
    assert trials["reason"].dropna().str.startswith("'=").all()
    assert pd.api.types.is_numeric_dtype(trials["val_loss"])


def test_figures_draw_names_as_they_are(report: Path) -> None:
    figures = list((report / "report" / "figures").glob("*.svg"))
    assert figures
    text = "".join(path.read_text() for path in figures)
    assert "<img src=x" not in text
    assert "$x_1$" in text


@quick
@given(st.text(max_size=40))
def test_escaped_text_is_one_line_without_commands(text: str) -> None:
    tex, markdown = escape_tex(text), escape_markdown(text)
    assert len(tex.splitlines()) <= 1 and len(markdown.splitlines()) <= 1
    assert not re.search(r"(?<!\\)[&%#_]", tex)
    assert not re.search(r"(?<!\\)(\\\\)*[|<`]", re.sub(r"\\.", "", markdown))


def test_a_frame_in_markdown_escapes_heads_and_cells() -> None:
    text = frame_markdown(pd.DataFrame({IMG: [PIPES]}), [IMG])
    assert len(text.splitlines()) == 3
    assert "<img" not in text.replace(r"\<img", "")


def test_a_table_whose_pages_are_altered_is_refused(report: Path, tmp_path: Path) -> None:
    whole = (report / "tables" / "ablation.parquet").read_bytes()
    true = read_table(report / "tables", "ablation")
    refused = 0
    footer = int.from_bytes(whole[-8:-4], "little")  # which Parquet gives no checksum
    for at in range(4, len(whole) - 8 - footer, 100):
        altered = bytes([*whole[:at], whole[at] ^ 0x5A, *whole[at + 1 :]])
        (tmp_path / "ablation.parquet").write_bytes(altered)
        try:
            found = read_table(tmp_path, "ablation")
        except RecordError:
            refused += 1
        else:
            assert found.equals(true), at
    assert refused > 5
