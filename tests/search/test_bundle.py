"""A sealed study: whatever is changed of it is found and named, and its trials come out again."""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reports.sealed import differences, write_tables
from search.study.folder import StudyDir
from search.study.identity import fingerprints_of
from search.study.journal import Journal
from search.study.sealed import MANIFEST, SEAL, broken, opened_bundle, read_manifest
from spaces.load import space_of
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record import files
from tcpa_core.record.events import Ended, Epoch, Event, Planned, StudyBegun, encode_line
from tcpa_core.record.events import read_journal as events_of
from tcpa_core.training.run_trial import run_trial
from tests.reports.studies import final, planned, write

SPACE: dict[str, Any] = {
    "name": "sealed",
    "base": {
        "methods": ["linear"], "backbone.name": "vit_nano", "train.epochs": 2,
        "data.name": "digits", "data.size_per_class": 4,
    },
    "axes": {"optim.lr": {"choice": [0.01, 0.1]}},
    "objective": {"metric": "val_accuracy", "goal": "maximize"},
    "sampler": {"name": "grid"},
    "scheduler": {"name": "none"},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a study whose two trials were really trained."""
    root = tmp_path_factory.mktemp("studies")
    space = space_of(SPACE)
    prints = fingerprints_of(space.trials)
    study = StudyDir.create(root, "sealed", space, prints, "")
    journal = Journal(study.journal_path)
    journal.append(StudyBegun(name="sealed"))
    ids = prints["data"], prints["weights"]
    for number, config in enumerate(space.trials):
        name = f"{number:05d}"
        known = {"digest": config.digest(*ids), "point": config.point(*ids)}
        events: list[Event] = [Planned.of(name, config, origin="sampler", draw={}, **known)]
        result = run_trial(
            config,
            on_epoch=lambda report, to=events, trial=name: to.append(
                Epoch(trial=trial, report=report)
            ),
            device="cpu",
        )
        journal.append(*events, Ended(trial=name, result=result))
        folder = study.path / files.CHECKPOINTS / name
        folder.mkdir(parents=True)
        (folder / files.BEST).write_bytes(b"a trained state")
    journal.close()
    return root


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sealed(root: Path, tmp_path: Path, typed: Run) -> Path:
    """Its bundle as a folder."""
    words = ["bundle", "sealed", "--root", str(root), "--out", "b", "--states", "all"]
    assert typed(*words)[0] == 0
    return tmp_path / "b"


def resealed(bundle: Path) -> None:
    """Make hashes and seal fit what was changed, as a forger would."""
    document = json.loads((bundle / MANIFEST).read_text())
    for name in document["files"]:
        data = (bundle / name).read_bytes()
        document["files"][name] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    text = json.dumps(document).encode()
    (bundle / MANIFEST).write_bytes(text)
    (bundle / SEAL).write_text(hashlib.sha256(text).hexdigest())


def test_a_bundle_is_verified_in_a_fresh_folder(root: Path, tmp_path: Path, typed: Run) -> None:
    code, said, _ = typed("bundle", "sealed", "--root", str(root))
    assert code == 0 and (tmp_path / "sealed.zip").is_file()
    seal = said.split("seal ")[1].split()[0]
    code, said, _ = typed("verify", "sealed.zip", "--seal", seal, "--trials", "2")
    assert code == 0, said
    assert "verified: 2 of its trials came out again" in said
    assert said.count("all numbers agree bit for bit") == 2
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == [
        "sealed.zip"
    ]
    assert typed("verify", "sealed.zip", "--seal", "0" * 64, "--trials", "0")[0] == 1
    assert typed("bundle", "sealed", "--root", str(root))[0] == 2, "it exists already"


def test_importance_is_sealed_with_the_other_tables(tmp_path: Path) -> None:
    """It is fitted, so that its bytes are compared and not its numbers."""
    events = [
        one
        for n in range(12)
        for one in (
            planned(n, optim__lr=0.01 * (n + 1)),
            final(n, "completed", 0.5 + 0.01 * n),
        )
    ]
    write(tmp_path / "study", events)
    write_tables(tmp_path / "study", tmp_path / "tables")
    assert (tmp_path / "tables" / "importance.parquet").is_file()
    assert not differences(tmp_path / "study", tmp_path / "tables")


def test_a_flipped_byte_of_any_file_is_named(sealed: Path, typed: Run) -> None:
    assert typed("verify", "b", "--trials", "0")[0] == 0
    names = [p.relative_to(sealed).as_posix() for p in sealed.rglob("*") if p.is_file()]
    assert {files.JOURNAL, files.DESCRIPTION, "environment.txt", "tables/trials.parquet"} < set(
        names
    )
    assert f"{files.CHECKPOINTS}/00001/{files.BEST}" in names
    for name in names:
        whole = (sealed / name).read_bytes()
        at = len(whole) // 2
        (sealed / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        code, said, _ = typed("verify", "b", "--trials", "0")
        named = MANIFEST if name == SEAL else name
        assert code == 1 and "NOT VERIFIED" in said and named in said, name
        (sealed / name).write_bytes(whole)
    assert typed("verify", "b", "--trials", "0")[0] == 0


def test_a_number_changed_in_a_table_and_sealed_again_is_named(sealed: Path, typed: Run) -> None:
    path = sealed / "tables" / "trials.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("val_accuracy")
    values = table["val_accuracy"].to_pylist()
    values[1] += 1e-6
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)
    resealed(sealed)
    code, said, _ = typed("verify", "b", "--trials", "0")
    assert code == 1 and "tables/trials: val_accuracy of row 1 is" in said


def test_a_number_changed_in_a_csv_and_sealed_again_is_named(sealed: Path, typed: Run) -> None:
    path = sealed / "tables" / "epochs.csv"
    whole = path.read_text()
    number = whole.splitlines()[1].split(",")[-1]
    path.write_text(whole.replace(number, "0.123", 1))
    resealed(sealed)
    code, said, _ = typed("verify", "b", "--trials", "0")
    assert code == 1 and "tables/epochs.csv: " in said and "in line 2 is '0.123'" in said
    path.write_text(whole.rsplit("\n", 2)[0] + "\n")
    resealed(sealed)
    code, said, _ = typed("verify", "b", "--trials", "0")
    assert code == 1 and "tables/epochs.csv: not the rows and columns" in said


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_no_journal_gives_is_named(sealed: Path, typed: Run, suffix: str) -> None:
    name = f"tables/scores.{suffix}"
    shutil.copy(sealed / "tables" / f"epochs.{suffix}", sealed / name)
    document = json.loads((sealed / MANIFEST).read_text())
    document["files"][name] = {}
    (sealed / MANIFEST).write_text(json.dumps(document))
    resealed(sealed)
    code, said, _ = typed("verify", "b", "--trials", "0")
    assert code == 1 and "tables/scores" in said


def test_no_byte_of_a_zip_file_is_free(root: Path, tmp_path: Path, typed: Run) -> None:
    """Those of its directory and its end, of which times and versions change no file, too."""
    assert typed("bundle", "sealed", "--root", str(root), "--out", "b.zip")[0] == 0
    whole = (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.zip") as file:
        directory, heads = file.start_dir, [one.header_offset for one in file.infolist()]
    near = {at + k for at in heads for k in range(30)}
    flips = {(at, at % 8) for at in {*near, *range(directory, len(whole), 3)}}
    flips |= {(len(whole) - 66 + k, bit) for k in range(2) for bit in range(8)}  # comment's length
    for at, bit in sorted(flips):
        flipped = whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]
        (tmp_path / "b.zip").write_bytes(flipped)
        # Refused as no zip file, as no bundle, or as one that has changed.
        with (
            suppress(StudyError, RecordError),
            opened_bundle(tmp_path / "b.zip") as source,
        ):
            assert broken(source, read_manifest(source)), at
    (tmp_path / "b.zip").write_bytes(whole)
    with (
        zipfile.ZipFile(tmp_path / "b.zip") as file,
        zipfile.ZipFile(tmp_path / "again.zip", "w") as again,
    ):
        for name in file.namelist():
            again.writestr(name, file.read(name))
    for path in ("b.zip", "again.zip"):
        with opened_bundle(tmp_path / path) as source:
            assert not broken(source, read_manifest(source))


def test_other_data_and_other_settings_are_said(sealed: Path, typed: Run) -> None:
    code, said, err = typed("verify", "b", "--set", "optim.lr=0.1")
    assert code == 2 and "--set optim.lr" in err and "data.root" in err
    path = sealed / files.DESCRIPTION
    path.write_text(
        re.sub(r"(data: )'?[0-9a-f]{64}'?", r"\g<1>" + "'" + "0" * 64 + "'", path.read_text())
    )
    resealed(sealed)
    code, said, err = typed("verify", "b", "--trials", "1")
    assert code == 1 and "other data or weights than it was made with" in said
    assert "--accept-changed-data" not in said + err


def change_journal(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle / files.JOURNAL
    lines = [event.as_dict() for event in events_of(path)]
    for line in lines:
        change(line)
    path.write_bytes(b"".join(encode_line(line) for line in lines))
    resealed(bundle)


def forged(bundle: Path, typed: Run) -> None:
    """Seal what was changed, with the tables that follow from it."""
    root = bundle.parent / "forged"
    shutil.copytree(bundle, root / "sealed")
    shutil.rmtree(bundle)
    assert typed("bundle", "sealed", "--root", str(root), "--out", bundle.name)[0] == 0


def test_a_number_changed_everywhere_does_not_come_out_again(sealed: Path, typed: Run) -> None:
    def better(line: dict[str, Any]) -> None:
        if line["kind"] == "epoch":
            line["val_loss"] *= 0.99

    change_journal(sealed, better)
    code, said, _ = typed("verify", "b", "--trials", "0")
    assert code == 1 and "val_loss of row 0" in said
    forged(sealed, typed)
    code, said, _ = typed("verify", "b", "--trials", "1", "--draw", "0")
    assert code == 1 and "DIFFER by more than" in said and "do not come out again" in said


def test_no_path_of_a_bundle_is_followed(sealed: Path, tmp_path: Path, typed: Run) -> None:
    def elsewhere(line: dict[str, Any]) -> None:
        if line["kind"] == "planned":
            line["params"]["data.root"] = "/etc"

    whole = tmp_path / "whole"
    shutil.copytree(sealed, whole)
    change_journal(sealed, elsewhere)
    forged(sealed, typed)
    code, said, err = typed("verify", "b", "--trials", "1")
    assert code == 2 and "data.root '/etc'" in err and "--set data.root=" in err
    # names that lead out of the bundle
    for name in ("../evil", "/tmp/evil", "a/../../evil", "C:evil", ".hidden", "a//b"):
        document = json.loads((whole / MANIFEST).read_text())
        document["files"][name] = {"bytes": 1, "sha256": "0" * 64}
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
            file.writestr(MANIFEST, json.dumps(document))
            file.writestr(name, "x")
        code, said, _ = typed("verify", "evil.zip", "--trials", "0")
        assert code == 1 and "is no file of a bundle" in said, name
    assert not (tmp_path / "evil").exists() and not (tmp_path.parent / "evil").exists()


def test_what_is_no_bundle_is_refused_in_a_sentence(tmp_path: Path, typed: Run) -> None:
    (tmp_path / "text").write_text("no zip")
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr(MANIFEST, '{"files": 3}')
    for name, code in {"text": 2, "none": 2, "empty": 1, "other.zip": 1}.items():
        found, said, err = typed("verify", name)
        assert found == code and "Traceback" not in said + err, name
