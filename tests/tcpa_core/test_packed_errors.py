"""Damaged, odd and hostile lists and packed files: one sentence with place, reason and remedy."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tcpa_core.data import _lists
from tcpa_core.data.base import dataset_summary, load_dataset
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.settings import DataConfig
from tests.tcpa_core.packed_layouts import (
    NAMES,
    SIZES,
    class_label,
    encoded,
    example,
    examples,
    message,
    number,
    pixels,
    put,
    rows_of,
    samples,
    table,
    tar,
    tfrecord,
    write,
)

Make = Callable[[Path], Any]


def told(kind: str, make: Make, tmp_path: Path, **settings: Any) -> str:
    """The error on reading and decoding."""
    root = tmp_path / "set"
    root.mkdir()
    make(root)
    cfg = DataConfig(name=kind, root=str(root), **settings)
    with pytest.raises(DataError) as caught:
        load_dataset(cfg, 8, cache_dir=tmp_path / "cache")
    text = str(caught.value)
    assert str(root) in text and "\n" not in text and len(text) < 900
    return text


def parquet(**columns: Any) -> Make:
    """A train file with other columns, and a whole test file."""

    def make(root: Path) -> None:
        one = table(rows_of("train"))
        for name, values in columns.items():
            one = one.set_column(one.schema.get_field_index(name), name, values)
        write(root / "train.parquet", one)
        write(root / "test.parquet", table(rows_of("test")))

    return make


def structs(change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> pa.Array:
    rows = [{"bytes": encoded(seed), "path": f"{seed}.png"} for seed, _ in rows_of("train")]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([change(i, row) for i, row in enumerate(rows)], kind)


def truncated(root: Path) -> None:
    parquet()(root)
    whole = (root / "train.parquet").read_bytes()
    (root / "train.parquet").write_bytes(whole[: len(whole) // 2])


def flipped(root: Path) -> None:
    parquet()(root)
    whole = bytearray((root / "train.parquet").read_bytes())
    whole[4:400] = bytes(396)
    (root / "train.parquet").write_bytes(bytes(whole))


def two_configurations(root: Path) -> None:
    write(root / "plain_text/train-00000-of-00001.parquet", table(rows_of("train")))
    write(root / "other/train-00000-of-00001.parquet", table(rows_of("train")))


def two_namings(root: Path) -> None:
    write(root / "train.parquet", table(rows_of("train"), metadata=class_label()))
    meta = class_label(names=("owl", "apple", "zebra"))
    write(root / "test.parquet", table(rows_of("test"), metadata=meta))


def only_test(root: Path) -> None:
    write(root / "test-00000-of-00001.parquet", table(rows_of("test")))


def above_the_names(root: Path) -> None:
    named = table([(s, n + 5) for s, n in rows_of("train")], metadata=class_label())
    write(root / "train.parquet", named)


COUNT = SIZES["train"]
PARQUET: dict[str, tuple[Make, str]] = {
    "cut": (truncated, r"train.parquet is not a whole Parquet file .* download it again"),
    "zeros in a page": (flipped, r"train.parquet.* cannot be read .*download the file again"),
    "no bytes": (
        parquet(image=structs(lambda i, row: row | ({"bytes": None} if i == 7 else {}))),
        r"train.parquet, row 7: column 'image.bytes' has no bytes",
    ),
    "a null for an image": (
        parquet(image=structs(lambda i, row: None if i == 8 else row)),  # type: ignore[arg-type,return-value]
        r"train.parquet, row 8: column 'image.bytes' has no bytes",
    ),
    "broken image": (
        parquet(image=structs(lambda i, row: row | ({"bytes": b"\0" * 50} if i == 7 else {}))),
        r"train.parquet/7/7.png",
    ),
    "addresses": (
        parquet(image=pa.array(["https://example.org/1.png"] * COUNT)),
        r"column 'image' holds texts, which are addresses .* data.name=imagelist",
    ),
    "numbers for pixels": (
        parquet(image=pa.array([[[1, 2], [3, 4]]] * COUNT)),
        r"column 'image' must hold the bytes .* got list<.*Image feature",
    ),
    "null for a label": (
        parquet(label=pa.array([None, *[0] * (COUNT - 1)], pa.int64())),
        r"train.parquet, row 0: column 'label' must give one class.* got None",
    ),
    "several labels": (
        parquet(label=pa.array([[1, 2]] * COUNT)),
        r"row 0: column 'label' must give one class.* got \[1, 2\]",
    ),
    "half a label": (
        parquet(label=pa.array([0.5] * COUNT)),
        r"row 0: column 'label' must give one class.* got 0.5",
    ),
    "some labels hidden": (
        parquet(label=pa.array([-1, *[1] * (COUNT - 1)])),
        r"1 of 12 train images have a label below 0, first 'train.parquet/0/0000.png'",
    ),
    "no label": (
        lambda root: write(root / "train.parquet", table(rows_of("train"), label=None)),
        r"train has no labels \(train.parquet .* but 'image'; set data.label_column to one of them",
    ),
    "no image": (
        lambda root: write(root / "train.parquet", table(rows_of("train"), image="scan")),
        r"no column image or img .*, but 'scan', 'label'; set data.image_column to one of them",
    ),
    "two configurations": (
        two_configurations,
        r"2 configurations of a data set: 'other', 'plain_text'; add one of them to data.root",
    ),
    "two namings": (two_namings, r"test.parquet and train.parquet .* name their classes different"),
    "only test": (only_test, r"no split is named train .* found 'test-00000-of-00001.parquet'"),
    "labels above the names": (above_the_names, r"must be in 0..2 \(3 classes by the files' Class"),
    "empty folder": (lambda root: None, r"no file \*.parquet below .* data.root must be"),
    "odd word in the column of splits": (
        lambda root: write(
            root / "all.parquet",
            table(rows_of("train"), more={"split": pa.array(["train"] * 11 + ["unseen"])}),
        ),
        r"all.parquet/11/0011.png: the column of splits must say train, .* 1 say something else",
    ),
    "no rows": (
        lambda root: write(root / "train.parquet", table(rows_of("train")).slice(0, 0)),
        r"train has no labels|split train has no images",
    ),
}


@pytest.mark.parametrize("case", PARQUET)
def test_parquet(case: str, tmp_path: Path) -> None:
    make, expected = PARQUET[case]
    assert re.search(expected, told("parquet", make, tmp_path))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    message = told("parquet", parquet(), tmp_path, label_column="grade")
    assert re.search(r"no column grade, but 'image', 'label'; set data.label_column", message)


def test_settings_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.label_column='x' is not read by data.name='npz'"):
        dataset_summary(DataConfig(name="npz", root=str(tmp_path), label_column="x"))


def special(name: str, **about: Any) -> Make:
    """A good shard with one member of another type."""

    def make(root: Path) -> None:
        tar(root / "train-000000.tar", samples(rows_of("train"), "cls", number))
        with tarfile.open(root / "train-000000.tar", "a") as archive:
            member = tarfile.TarInfo(name)
            for key, value in about.items():
                setattr(member, key, value)
            archive.addfile(member)

    return make


def appended(*members: tuple[str, bytes]) -> Make:
    def make(root: Path) -> None:
        good = samples(rows_of("train"), "cls", number)
        tar(root / "train-000000.tar", [*good, *members])

    return make


def sparse(root: Path) -> None:
    """A file of a tebibyte that is all hole, in GNU's format 1.0."""
    tar(root / "train-000000.tar", samples(rows_of("train"), "cls", number))
    with tarfile.open(root / "train-000000.tar", "a", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("s9.png")
        member.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s9.png",
            "GNU.sparse.realsize": str(1 << 40),
        }  # fmt: skip
        holes = b"0\n".ljust(512, b"\0")
        member.size = len(holes)
        archive.addfile(member, io.BytesIO(holes))


def lying(root: Path) -> None:
    """A header that promises more than the shard has."""
    path = root / "train-000000.tar"
    tar(path, samples(rows_of("train"), "cls", number))
    about = tarfile.TarInfo("s9.png")
    about.size = 1 << 29
    whole = path.read_bytes().rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    path.write_bytes(whole + about.tobuf() + bytes(1024))


def packed(root: Path) -> None:
    with tarfile.open(root / "train-000000.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))


IMAGE = encoded(7)
WEBDATASET: dict[str, tuple[Make, str]] = {
    "absolute path": (
        appended(("/etc/s9.png", IMAGE)),
        r"train-000000.tar: image path must be relative and stay inside .* got '/etc/s9.png'",
    ),
    "path upwards": (appended(("../s9.png", IMAGE)), r"stay inside .* got '../s9.png'"),
    "link": (
        special("s9.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        r"member 's9.png' is a link, a device or a file with holes, .* plain files",
    ),
    "hard link": (
        special("s9.png", type=tarfile.LNKTYPE, linkname="s0000000.png"),
        r"member 's9.png' is a link",
    ),
    "device": (special("s9.png", type=tarfile.CHRTYPE), r"member 's9.png' is a link, a device"),
    "holes": (sparse, r"member 's9.png' is a link, a device or a file with holes"),
    "more than there is": (lying, r"member 's9.png' has 536,870,912 bytes by its header"),
    "huge class": (
        appended(("s9.png", IMAGE), ("s9.cls", b"1" * (1 << 21))),
        r"member 's9.cls' has 2,097,152 bytes",
    ),
    "no class": (
        appended(("s9.png", IMAGE)),
        r"train-000000.tar/s9.png has no class: no .cls, .json .* stands beside it",
    ),
    "no image": (appended(("s9.cls", b"1")), r"sample 's9' has no image"),
    "two images": (
        appended(("s9.png", IMAGE), ("s9.jpg", IMAGE), ("s9.cls", b"1")),
        r"sample 's9' has two images, .png and .jpg",
    ),
    "name twice": (
        appended(("s0000000.png", IMAGE), ("s0000000.cls", b"1")),
        r"members of sample 's0000000' stand apart or twice",
    ),
    "broken json": (
        appended(("s9.png", IMAGE), ("s9.json", b"{")),
        r"s9.json is no UTF-8 text or JSON",
    ),
    "deep json": (
        appended(("s9.png", IMAGE), ("s9.json", b"[" * 100_000)),
        r"s9.json is no UTF-8 text or JSON",
    ),
    "several classes": (
        appended(("s9.png", IMAGE), ("s9.json", b'{"label": [1, 2]}')),
        r"s9.json must give one class, .* got \[1, 2\]",
    ),
    "compressed": (packed, r"train-000000.tar.gz is compressed, .* unpack it to a plain .tar"),
    "no tar": (
        lambda root: (root / "train.tar").write_bytes(b"no tar" * 1000),
        r"train.tar is not a whole, uncompressed tar file",
    ),
    "broken image": (
        appended(("s9.png", b"no image"), ("s9.cls", b"1")),
        r"train-000000.tar/s9.png",
    ),
}


@pytest.mark.parametrize("case", WEBDATASET)
def test_webdataset(case: str, tmp_path: Path) -> None:
    make, expected = WEBDATASET[case]
    assert re.search(expected, told("webdataset", make, tmp_path))


PIXELS = np.stack([pixels(seed) for seed, _ in rows_of("train")])
CLASSES = np.array([label for _, label in rows_of("train")])


def npz(**changes: Any) -> Make:
    arrays = {"x_train": PIXELS, "y_train": CLASSES} | changes
    return lambda root: np.savez(root / "mine.npz", allow_pickle=True, **arrays)


def raw_npz(header: str, body: bytes = b"") -> Make:
    """An archive whose x_train has a header of its own."""

    def make(root: Path) -> None:
        text = header.encode().ljust(117) + b"\n"
        with zipfile.ZipFile(root / "mine.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
            archive.writestr("x_train.npy", start + body)
            file = io.BytesIO()
            np.save(file, CLASSES)
            archive.writestr("y_train.npy", file.getvalue())

    return make


def bad_crc(root: Path) -> None:
    npz()(root)
    whole = bytearray((root / "mine.npz").read_bytes())
    whole[400] ^= 1
    (root / "mine.npz").write_bytes(bytes(whole))


HUGE = "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 1000000, 1000000, 3)}"
NPZ: dict[str, tuple[Make, str]] = {
    "objects": (
        npz(y_train=np.array([{"a": 1}] * 12, object)),
        r"mine.npz, array 'y_train' holds Python objects .* run code; save plain arrays",
    ),
    "objects for images": (
        npz(x_train=np.array([None] * 12, object)),
        r"array 'x_train' holds Python objects",
    ),
    "huge": (raw_npz(HUGE), r"array 'x_train' has \d+ bytes, its header says 36,000,000,000,1"),
    "negative": (
        raw_npz("{'descr': '|u1', 'fortran_order': False, 'shape': (-12, 9, 9, 3)}"),
        r"array 'x_train' has \d+ bytes, its header says",
    ),
    "no header": (raw_npz("not a header"), r"array 'x_train' is not a NumPy array"),
    "values of 0 to 1": (
        npz(x_train=PIXELS / 255),
        r"array 'x_train' is of float64, but pixels are read as uint8, .* save \(255",
    ),
    "volumes": (
        npz(x_train=np.zeros((12, 8, 8, 8, 3), np.uint8)),
        r"has shape \[12, 8, 8, 8, 3\], but images are",
    ),
    "flat": (npz(x_train=PIXELS.reshape(12, -1)), r"has shape \[12, 324\], but images are"),
    "four channels": (
        npz(x_train=np.zeros((12, 8, 8, 4), np.uint8)),
        r"has shape \[12, 8, 8, 4\], but images are",
    ),
    "column by column": (npz(x_train=np.asfortranarray(PIXELS)), r"stored column by column"),
    "one-hot": (npz(y_train=np.eye(3)[CLASSES]), r"'y_train' has shape \[12, 3\].*argmax"),
    "fewer labels": (npz(y_train=CLASSES[:5]), r"'y_train' has shape \[5\].* 12 images"),
    "fractions": (npz(y_train=CLASSES + 0.5), r"'y_train' is of float64, but classes are"),
    "unnamed": (
        lambda root: np.savez(root / "mine.npz", PIXELS, CLASSES),
        r"no array .* is named as images of a split: arrays are 'arr_0 \[12, 12, 9, 3\] uint8'",
    ),
    "two data sets": (
        lambda root: [npz()(root), (root / "mine.npz").rename(root / "one.npz"), npz()(root)],
        r"two arrays give the images of train .*: 'x_train' of mine.npz .* of one.npz; set data.ro",
    ),
    "labels alone": (
        lambda root: np.savez(root / "mine.npz", x_train=PIXELS, y_train=CLASSES, y_test=CLASSES),
        r"test has classes in 'y_test' but no images",
    ),
    "no archive": (
        lambda root: (root / "mine.npz").write_bytes(b"no archive"),
        r"mine.npz is not a whole .npz file",
    ),
    "damaged": (bad_crc, r"mine.npz is not a whole .npz file \(Bad CRC"),
}


@pytest.mark.parametrize("case", NPZ)
def test_npz(case: str, tmp_path: Path) -> None:
    make, expected = NPZ[case]
    assert re.search(expected, told("npz", make, tmp_path))


def records(*more: bytes, tail: bytes = b"") -> Make:
    def make(root: Path) -> None:
        path = root / "mine-train.tfrecord-00000-of-00001"
        tfrecord(path, [*examples("train"), *more])
        path.write_bytes(path.read_bytes() + tail)

    return make


TFDS: dict[str, tuple[Make, str]] = {
    "cut": (
        records(tail=b"\x40" + bytes(11)),
        r"00000-of-00001, record 12 ends behind the end of the file; the file must hold plain",
    ),
    "gzip": (
        lambda root: (root / "mine-train.tfrecord-00000-of-00001").write_bytes(gzip.compress(b"x")),
        r"record 0 is compressed \(gzip\); the file must hold plain TFRecords",
    ),
    "cut in a length": (records(tail=b"\x01\x02"), r"record 12 ends behind"),
    "a huge length": (records(tail=b"\xff" * 12), r"record 12 ends behind the end"),
    "no example": (records(b"\x0b\x01"), r"record 12 is no tf.train.Example"),
    "an endless number": (records(b"\xff" * 40), r"record 12 is no tf.train.Example"),
    "a field beyond the record": (
        records(b"\x0a\x7fabc"),
        r"record 12 has a field that is longer than the record",
    ),
    "no image": (
        records(example({"label": 1})),
        r"record 12 has no feature image or .*, but 'label'; set data.image_column",
    ),
    "no class": (
        records(example({"image": encoded(1)})),
        r"1 of 13 records of mine-train.* no cla",
    ),
    "two classes": (
        records(
            message(
                1,
                message(1, message(1, b"image"), message(2, message(1, message(1, encoded(1))))),
                message(1, message(1, b"label"), message(2, message(3, message(1, b"\1\2")))),
            )
        ),
        r"record 12 must give one class",
    ),
    "broken image": (
        records(example({"image": b"no image", "label": 1})),
        r"00000-of-00001/12 ",
    ),
    "two versions": (
        lambda root: [
            tfrecord(root / f"{n}.0.0/mine-train.tfrecord-00000-of-00001", examples("train"))
            for n in (1, 2)
        ],
        r"holds 2 data sets or versions: '1.0.0', '2.0.0'; add one of them to data.root",
    ),
}


@pytest.mark.parametrize("case", TFDS)
def test_tfds(case: str, tmp_path: Path) -> None:
    make, expected = TFDS[case]
    assert re.search(expected, told("tfds", make, tmp_path))


def test_a_class_of_tfds_may_be_below_zero_or_a_text(tmp_path: Path) -> None:
    """Int64 are written as ten bytes then; test labels of -1 are left out."""
    rows = [example({"image": encoded(s), "label": NAMES[n].encode()}) for s, n in rows_of("train")]
    tfrecord(tmp_path / "set/mine-train.tfrecord", rows)
    hidden = [example({"image": encoded(s), "label": -1}) for s, _ in rows_of("test")]
    tfrecord(tmp_path / "set/mine-test.tfrecord", hidden)
    cfg = DataConfig(name="tfds", root=str(tmp_path / "set"))
    summary = dataset_summary(cfg, cache_dir=tmp_path / "cache")
    assert summary.class_names == NAMES
    assert any("test has 6 images without labels" in note for note in summary.notes)


def lists(more: dict[str, bytes | str], images: int = 12) -> Make:
    """Images 0.png to 11.png below images/, and lists."""

    def make(root: Path) -> None:
        (root / "images").mkdir()
        for i in range(images):
            (root / f"images/{i}.png").write_bytes(encoded(i))
        for name, content in more.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            (root / name).write_bytes(data)

    return make


ROWS = "".join(f"{i}.png,{i % 2}\n" for i in range(12))
OBJECTS = [{"image": f"{i}.png", "label": i % 2} for i in range(12)]


def changed(row: int, text: str) -> dict[str, bytes | str]:
    """A table in which one row is another."""
    rows = ROWS.splitlines()
    rows[row] = text
    return {"train.csv": "image,label\n" + "\n".join(rows)}


IMAGELIST: dict[str, tuple[Make, str]] = {
    "path upwards": (
        lists(changed(3, "../../etc/passwd,1")),
        r"train.csv:5: image path must be relative and stay inside .* without '..'",
    ),
    "absolute path among others": (lists(changed(3, "/etc/passwd,1")), r"images//?etc/passwd"),
    "absolute path first": (
        lists(changed(0, "/etc/passwd,1")),
        r"csv:2: image '/etc/passwd'",
    ),
    "NUL in a path": (lists(changed(3, "3\0.png,1")), r"train.csv:5: image path must be relative"),
    "NUL in a class": (
        lists(changed(3, "3.png,a\0b")),
        r"csv:5: class 'a\\x00b' has control",
    ),
    "few columns": (lists(changed(3, "3.png")), r"train.csv:5: '3.png' has 1 columns, .* need 2"),
    "no class": (lists(changed(3, "3.png,")), r"train.csv:5: '3.png' has no class; give it one"),
    "missing image": (lists(changed(3, "33.png,1")), r"1 of 12 listed images are missing.*33.png"),
    "open quote": (lists(changed(3, '"3.png,1')), r"train.csv:\d+: unexpected end of data; write"),
    "huge cell": (
        lists(changed(3, '"' + "a" * 200_000 + '",1')),
        r"train.csv:\d+: field larger than field limit",
    ),
    "two classes": (
        lists({"train.csv": f"image,label\n{ROWS}3.png,0\n"}),
        r"'images/3.png' is named twice with two classes, '1' in .*train.csv:5 and '0' in .*csv:14",
    ),
    "in two splits": (
        lists({"train.csv": f"image,label\n{ROWS}", "val.csv": "image,label\n3.png,1\n"}),
        r"image 'images/3.png' is named twice, in train .* and in val",
    ),
    "unknown columns": (
        lists({"train.csv": "name,age,grade\n" + ROWS.replace(",", ",5,")}),
        r"has no column label, labels, .*'name', 'age', 'grade'; set data.label_column to one",
    ),
    "no names of three columns": (
        lists({"train.csv": ROWS.replace(",", ",5,")}),
        r"train.csv has 3 columns and no header that says which is which",
    ),
    "several lists": (
        lists({f"annotations/train_meta.list.num_shot_1.seed_{n}": ROWS for n in range(3)}),
        r"3 lists .* are of train: 'annotations/train_meta.list.num_shot_1.seed_0', .*train_list",
    ),
    "no list": (lists({}), r"no list of train .*there is no list; name it train.csv"),
    "unknown split": (
        lists({"labels.csv": "image,label,split\n" + ROWS.replace("\n", ",unseen\n")}),
        r"labels.csv:2: the column of splits must say train, .* got 'unseen'",
    ),
    "not UTF-8": (lists({"train.csv": b"image,label\n\xff.png,1"}), r"train.csv must be UTF-8"),
    "empty": (lists({"train.csv": ""}), r"train.csv names no image; restore"),
    "header alone": (lists({"train.csv": "image,label\n"}), r"train.csv names no image; restore"),
    "JSON names twice": (
        lists({"train.json": '{"0.png": 1, "1.png": 0, "0.png": 0}'}),
        r"train.json is not JSON \('0.png' stands twice in one object\)",
    ),
    "deep JSON": (lists({"train.json": "[" * 100_000}), r"train.json is not JSON"),
    "broken JSON": (lists({"train.json": '{"0.png": '}), r"train.json is not JSON"),
    "a number of JSON": (lists({"train.json": "5"}), r"must be a list or an object, got 5"),
    "odd entry": (lists({"train.json": "[5]"}), r"train.json, entry 0 must be an object, or"),
    "half a class": (
        lists({"train.json": json.dumps([*OBJECTS, {"image": "5.png", "label": 0.5}])}),
        r"train.json, entry 12: a class must be a whole number or a text, got 0.5",
    ),
    "entries differ": (
        lists({"train.json": json.dumps([*OBJECTS, {"picture": "5.png"}])}),
        r"train.json has no column image.*'picture'; set data.image_column",
    ),
    "broken line": (
        lists({"train.jsonl": json.dumps(OBJECTS[0]) + "\n{"}),
        r"train.jsonl:2 is not JSON",
    ),
    "COCO without ids": (
        lists({"train.json": '{"images": [{"file_name": "a"}], "annotations": []}'}),
        r"images, annotations or categories lack 'id'",
    ),
    "broken image": (
        lambda root: [
            lists({"train.csv": f"image,label\n{ROWS}"})(root),
            (root / "images/3.png").write_bytes(b"no image"),
        ],
        r"images/3.png \(train.csv\)",
    ),
}


@pytest.mark.parametrize("case", IMAGELIST)
def test_imagelist(case: str, tmp_path: Path) -> None:
    make, expected = IMAGELIST[case]
    assert re.search(expected, told("imagelist", make, tmp_path))


def test_a_list_of_ten_million_lines_is_refused_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lists, "MAX_IMAGES", 100)
    rows = "".join(f"images/{i}.png,1\n" for i in range(10_000))
    message = told("imagelist", lists({"train.csv": "image,label\n" + rows}), tmp_path)
    assert "train.csv names more than 100 images, which is the most that is read" in message


def test_a_train_list_outside_the_folder_is_refused(tmp_path: Path) -> None:
    make = lists({"train.csv": f"image,label\n{ROWS}"})
    make_root = tmp_path / "set"
    make_root.mkdir()
    make(make_root)
    cfg = DataConfig(name="imagelist", root=str(make_root), train_list="../x.csv")
    with pytest.raises(DataError, match=r"data.train_list: .* stay inside"):
        dataset_summary(cfg, cache_dir=tmp_path / "cache")


def tree(*folders: str, classes: tuple[str, ...] = ("a", "b")) -> Make:
    def make(root: Path) -> None:
        for folder in folders:
            for name in classes:
                (root / folder / name).mkdir(parents=True)
                for i in range(4):
                    (root / folder / name / f"{i}.png").write_bytes(encoded(i))

    return make


def with_file(make: Make, name: str, content: bytes) -> Make:
    def both(root: Path) -> None:
        make(root)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return both


FOLDER: dict[str, tuple[Make, str]] = {
    "folders of splits are no classes": (
        tree(".", classes=("cars_train", "cars_test")),
        r"folder train/ is missing below",
    ),
    "a folder of lists beside": (
        with_file(tree("."), "meta/train.txt", b"x"),
        r"folder train/ is missing below",
    ),
    "another layout": (
        with_file(tree("."), "train-0000.parquet", b"x"),
        r"train/ is missing .* has the layout of 'parquet': set data.name=parquet",
    ),
    "an image beside flat classes": (
        with_file(tree("."), "c.png", encoded(1)),
        r"c.png lies beside the class folders; move it into one",
    ),
    "two images of a class and two splits to draw": (
        with_file(tree("train"), "train/c/1.png", encoded(9)),
        r"class folder .*train/c has one image, too few to split val and test off",
    ),
    "one class": (tree("train", classes=("a",)), r"at least 2 classes"),
}


@pytest.mark.parametrize("case", FOLDER)
def test_folder(case: str, tmp_path: Path) -> None:
    make, expected = FOLDER[case]
    assert re.search(expected, told("folder", make, tmp_path))


def test_a_second_folder_of_val_is_said_to_be_left_out(tmp_path: Path) -> None:
    tree("train", "val", "valid", "test")(tmp_path / "set")
    cfg = DataConfig(name="folder", root=str(tmp_path / "set"))
    notes = dataset_summary(cfg, cache_dir=tmp_path / "cache").notes
    assert "valid/ is left out, as val/ is val." in notes


def test_no_sample_is_read_from_a_shard_that_shrank(tmp_path: Path) -> None:
    """Between the list and the images the file became shorter."""
    from tcpa_core import plugins
    from tcpa_core.settings import DATASETS

    tar(tmp_path / "train-000000.tar", samples(rows_of("train"), "cls", number))
    cfg = DataConfig(name="webdataset", root=str(tmp_path))
    listing = plugins.load(DATASETS, "webdataset").read(cfg)
    (tmp_path / "train-000000.tar").write_bytes(b"")
    with pytest.raises(DataError, match="changed while it was read"):
        listing.splits["train"].read(0)


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_files_of_other_splits_are_said_to_be_left_out(kind: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("train", "extra"):
        if kind == "parquet":
            write(tmp_path / f"set/{name}.parquet", table(rows_of("train")))
        else:
            tar(tmp_path / f"set/{name}.tar", samples(rows_of("train"), "cls", number))
    cfg = DataConfig(name=kind, root=str(tmp_path / "set"))
    summary = dataset_summary(cfg, cache_dir=tmp_path / "cache")
    assert sum(summary.sizes.values()) == SIZES["train"]
    assert any(re.search("are left out: 'extra.[a-z]+'", note) for note in summary.notes)


def test_categories_of_one_name_stay_apart(tmp_path: Path) -> None:
    """As the two cranes of ImageNet."""
    found: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for seed, label in rows_of("train"):
        put(tmp_path / f"set/images/{seed}.png", seed)
        found["images"].append({"id": seed, "file_name": f"{seed}.png"})
        found["annotations"].append({"id": seed, "image_id": seed, "category_id": label})
    names = ("crane", "crane", "owl")
    found["categories"] = [{"id": i, "name": name} for i, name in enumerate(names)]
    (tmp_path / "set/train.json").write_text(json.dumps(found))
    cfg = DataConfig(name="imagelist", root=str(tmp_path / "set"))
    summary = dataset_summary(cfg, cache_dir=tmp_path / "cache")
    assert summary.class_names == ("crane (0)", "crane (1)", "owl")


def test_missing_shards_are_told(tmp_path: Path) -> None:
    """A download that was broken off lacks some of the files that the others' names count."""
    for name in ("train-00000-of-00003", "train-00002-of-00003-a9fc", "test-00000-of-00001"):
        write(tmp_path / f"set/data/{name}.parquet", table(rows_of(name.partition("-")[0])))
    cfg = DataConfig(name="parquet", root=str(tmp_path / "set"))
    summary = dataset_summary(cfg, cache_dir=tmp_path / "cache")
    told = [note for note in summary.notes if "files" in note]
    assert told == [
        "2 of 3 files train-*-of-00003 are there; the images of the others are missing."
    ]


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("parquet", "data/train-00000-of-00001.parquet"),
        ("webdataset", "train-0.tar"),
        ("npz", "train.npz"),
        ("tfds", "mine-train.tfrecord-00000-of-00001"),
    ],
)
def test_a_pointer_of_git_lfs_is_named(kind: str, file: str, tmp_path: Path) -> None:
    def make(root: Path) -> None:
        (root / file).parent.mkdir(exist_ok=True)
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        (root / file).write_text(pointer)

    assert "is a git-lfs pointer, not the file itself; run `git lfs pull`" in told(
        kind, make, tmp_path
    )


def test_json_is_not_needed_for_a_class(tmp_path: Path) -> None:
    """What describes a sample without naming its class leaves that to .txt."""
    members = []
    for name, content in samples(rows_of("train"), "txt", number):
        members.append((name, content))
        if name.endswith("png"):
            members.append((name.replace("png", "json"), json.dumps({"width": 9}).encode()))
    tar(tmp_path / "set/train.tar", members)
    cfg = DataConfig(name="webdataset", root=str(tmp_path / "set"))
    assert dataset_summary(cfg, cache_dir=tmp_path / "cache").class_names == ("0", "1", "2")
