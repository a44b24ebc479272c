"""Miniature data sets in the layouts of lists and of files that hold many images.

Each maker writes the same 24 pictures of 3 classes with the file, folder and column names of the
real thing; `Layout` says what has to come out. Nothing is downloaded.
"""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ("apple", "owl", "zebra")
SIZES = {"train": 12, "val": 6, "test": 6}
FIRST = {"train": 0, "val": 100, "test": 200}


def pixels(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)


def encoded(seed: int, form: str = "PNG") -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, form)
    return file.getvalue()


def rows_of(split: str) -> list[tuple[int, int]]:
    """Seed and class of each picture."""
    return [(FIRST[split] + i, i % 3) for i in range(SIZES[split])]


@dataclass(frozen=True)
class Layout:
    """How a data set is written, and what reading it has to give."""

    kind: str
    make: Callable[[Path], Any]
    splits: tuple[str, ...] = ("train", "val", "test")
    """The splits that it brings with labels; the others are drawn."""
    names: tuple[str, ...] = NAMES
    settings: dict[str, Any] = field(default_factory=dict)
    root: str = "."
    notes: str = ""
    """Expression that a note matches; "": there is none but on the test split."""


def class_label(column: str = "label", names: Sequence[str] = NAMES) -> dict[bytes, bytes]:
    """Metadata of the datasets library."""
    features = {
        "image": {"_type": "Image"},
        column: {"names": list(names), "_type": "ClassLabel"},
    }
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def table(
    rows: Sequence[tuple[int, Any]],
    *,
    image: str = "image",
    label: str | None = "label",
    label_type: Any = None,
    metadata: dict[bytes, bytes] | None = None,
    plain: bool = False,
    more: dict[str, Any] | None = None,
) -> pa.Table:
    """A table as the Hub has it: the struct of an Image feature beside a column of classes."""
    stored = [encoded(seed) for seed, _ in rows]
    if plain:
        images = pa.array(stored, pa.large_binary())
    else:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        named = [
            {"bytes": b, "path": f"{s:04d}.png"} for b, (s, _) in zip(stored, rows, strict=True)
        ]
        images = pa.array(named, kind)
    columns: dict[str, Any] = {image: images} | (more or {})
    if label is not None:
        columns[label] = pa.array([one for _, one in rows], label_type or pa.int64())
    return pa.table(columns).replace_schema_metadata(metadata)


def write(path: Path, written: pa.Table, group: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(written, path, row_group_size=group)


def hub_data(root: Path) -> None:
    """uoft-cs/cifar10-like: data/train-00000-of-00002.parquet."""
    meta = class_label()
    train = rows_of("train")
    write(root / "data/train-00000-of-00002.parquet", table(train[:7], metadata=meta))
    write(root / "data/train-00001-of-00002.parquet", table(train[7:], metadata=meta))
    write(root / "data/validation-00000-of-00001.parquet", table(rows_of("val"), metadata=meta))
    write(root / "data/test-00000-of-00001.parquet", table(rows_of("test"), metadata=meta))
    (root / "README.md").write_text("---\n---\n")


def hub_cifar10(root: Path) -> None:
    for split in ("train", "test"):
        one = table(rows_of(split), image="img", metadata=class_label())
        write(root / f"plain_text/{split}-00000-of-00001.parquet", one)


def hub_cifar100(root: Path) -> None:
    for split in ("train", "test"):
        rows = rows_of(split)
        coarse = {"coarse_label": pa.array([0] * len(rows), pa.int64())}
        meta = class_label("fine_label")
        one = table(rows, image="img", label="fine_label", metadata=meta, more=coarse)
        write(root / f"cifar100/{split}-00000-of-00001.parquet", one)


def hub_converted(root: Path) -> None:
    for split in ("train", "test"):
        one = table(rows_of(split), metadata=class_label())
        write(root / f"default/{split}/0000.parquet", one)


def hub_partial(root: Path) -> None:
    for split in ("partial-train", "partial-test"):
        one = table(rows_of(split.partition("-")[2]), metadata=class_label())
        write(root / f"default/{split}/0000.parquet", one)


def hub_old_names(root: Path) -> None:
    for split in SIZES:
        word = {"val": "valid"}.get(split, split)
        one = table(rows_of(split), label="labels", metadata=class_label("labels"))
        write(root / f"data/{word}-00000-of-00001-b42533a0e1ed7a3f.parquet", one)


def hub_cache(root: Path) -> None:
    """The cache of huggingface_hub: a snapshot of links to blobs."""
    snapshot = root / "snapshots/0f1f1b2c"
    for number, split in enumerate(SIZES):
        write(root / f"blobs/{number:064x}", table(rows_of(split), metadata=class_label()))
        link = snapshot / f"data/{split}-00000-of-00001.parquet"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../../blobs/{number:064x}")


def hub_unlabelled(root: Path) -> None:
    """As ImageNet-1k: the labels of test are -1."""
    meta = class_label()
    write(root / "data/train-00000-of-00001.parquet", table(rows_of("train"), metadata=meta))
    write(root / "data/validation-00000-of-00001.parquet", table(rows_of("val"), metadata=meta))
    hidden = [(seed, -1) for seed, _ in rows_of("test")]
    write(root / "data/test-00000-of-00001.parquet", table(hidden, metadata=meta))


def plain_strings(root: Path) -> None:
    """Written by pandas: bytes, and classes as texts."""
    for split in SIZES:
        named = [(seed, NAMES[label]) for seed, label in rows_of(split)]
        write(root / f"{split}.parquet", table(named, plain=True, label_type=pa.large_string()))


def plain_dictionary(root: Path) -> None:
    for split in SIZES:
        named = [(seed, NAMES[label]) for seed, label in rows_of(split)]
        kind = pa.dictionary(pa.int32(), pa.string())
        write(root / split / "part-0.parquet", table(named, label="class", label_type=kind))


def plain_int8(root: Path) -> None:
    for split in SIZES:
        write(root / f"{split}.parquet", table(rows_of(split), label_type=pa.int8(), plain=True))
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")


def plain_floats(root: Path) -> None:
    """Written by a program that makes fractions of numbers; images as clip-benchmark's."""
    for split in SIZES:
        one = table(rows_of(split), image="webp", label="cls", label_type=pa.float64(), plain=True)
        write(root / f"{split}.parquet", one)


def plain_bools(root: Path) -> None:
    rows = [(seed, label > 0) for seed, label in rows_of("train")]
    write(root / "train.parquet", table(rows, plain=True, label_type=pa.bool_()))


def large_texts(root: Path) -> None:
    """As Polars and new releases of datasets write: 64-bit offsets throughout."""
    kind = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    for split in SIZES:
        one = table([(s, NAMES[n]) for s, n in rows_of(split)], label_type=pa.large_string())
        write(root / f"{split}.parquet", one.set_column(0, "image", one.column(0).cast(kind)))


def split_column(root: Path) -> None:
    """One file for all, with a column that says which split a row is of."""
    words = {"train": "train", "val": "validation", "test": "test"}
    parts = []
    for split, word in words.items():
        more = {"split": pa.array([word] * SIZES[split])}
        parts.append(table(rows_of(split), metadata=class_label(), more=more))
    write(root / "everything.parquet", pa.concat_tables(parts))


def other_columns(root: Path) -> None:
    for split in SIZES:
        write(root / f"{split}.parquet", table(rows_of(split), image="scan", label="grade"))


def told_but_hidden(root: Path) -> None:
    for split in ("train", "test"):
        label = "species" if split == "train" else None
        write(root / f"{split}.parquet", table(rows_of(split), label=label))


def one_file(root: Path) -> None:
    write(root / "everything.parquet", table(rows_of("train"), metadata=class_label()))


PARQUET = {
    "parquet, data/, shards": Layout("parquet", hub_data),
    "parquet, root data/": Layout("parquet", hub_data, root="data"),
    "parquet, plain_text/": Layout("parquet", hub_cifar10, ("train", "test")),
    "parquet, fine_label": Layout("parquet", hub_cifar100, ("train", "test")),
    "parquet, coarse_label": Layout(
        "parquet", hub_cifar100, ("train", "test"), settings={"label_column": "fine_label"}
    ),
    "parquet, converted branch": Layout("parquet", hub_converted, ("train", "test")),
    "parquet, partial": Layout("parquet", hub_partial, ("train", "test"), notes="partial"),
    "parquet, hash in names": Layout("parquet", hub_old_names),
    "parquet, cache of the Hub": Layout("parquet", hub_cache),
    "parquet, hidden test labels": Layout(
        "parquet", hub_unlabelled, ("train", "val"), notes="test has 6 images without labels"
    ),
    "parquet, texts": Layout("parquet", plain_strings),
    "parquet, dictionary": Layout("parquet", plain_dictionary),
    "parquet, classes.txt": Layout("parquet", plain_int8),
    "parquet, large texts": Layout("parquet", large_texts),
    "parquet, column of splits": Layout("parquet", split_column),
    "parquet, fractions": Layout("parquet", plain_floats, names=("0", "1", "2")),
    "parquet, columns told": Layout(
        "parquet",
        other_columns,
        names=("0", "1", "2"),
        settings={"image_column": "scan", "label_column": "grade"},
    ),
    "parquet, column told, test without": Layout(
        "parquet",
        told_but_hidden,
        ("train",),
        ("0", "1", "2"),
        settings={"label_column": "species"},
        notes="test has 6 images without labels",
    ),
    "parquet, one file": Layout("parquet", one_file, ("train",)),
    "parquet, root is a file": Layout("parquet", one_file, ("train",), root="everything.parquet"),
}


def tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def samples(
    rows: Sequence[tuple[int, int]], suffix: str, label: Callable[[int], bytes], image: str = "png"
) -> list[tuple[str, bytes]]:
    """Members of a shard: each image and its class."""
    form = {"png": "PNG", "webp": "WEBP", "ppm": "PPM"}[image]
    options = {"lossless": True} if image == "webp" else {}
    members = []
    for seed, of_class in rows:
        file = io.BytesIO()
        Image.fromarray(pixels(seed)).save(file, form, **options)
        members.append((f"s{seed:07d}.{image}", file.getvalue()))
        if suffix:
            members.append((f"s{seed:07d}.{suffix}", label(of_class)))
    return members


def number(label: int) -> bytes:
    return b"%d" % label


def wds_shards(root: Path) -> None:
    """timm's ImageNet: a split in the shards' names, .cls beside .json with other things."""
    train = samples(rows_of("train"), "cls", number)
    more = [(name.replace(".png", ".json"), b'{"width": 9}') for name, _ in train[::2]]
    both = sorted([*train, *more])
    tar(root / "mine-train-0000.tar", both[:15])
    tar(root / "mine-train-0001.tar", both[15:])
    tar(root / "mine-validation-00.tar", samples(rows_of("val"), "cls", number))
    tar(root / "mine-test-00.tar", samples(rows_of("test"), "cls", number))
    (root / "classes.txt").write_text("\n".join(NAMES))
    (root / "_info.json").write_text("{}")


def wds_clip_benchmark(root: Path) -> None:
    """The tars of clip-benchmark: a folder for each split, its number of shards beside."""
    for split in ("train", "test"):
        members = samples(rows_of(split), "cls", number, "webp")
        tar(root / split / "0.tar", members[:6])
        tar(root / split / "1.tar", members[6:])
        (root / split / "nshards.txt").write_text("2")
    (root / "classnames.txt").write_text("\n".join(NAMES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of {c}")
    (root / "dataset_type.txt").write_text("imagefolder")


def wds_json(root: Path) -> None:
    for split in SIZES:

        def described(label: int) -> bytes:
            return json.dumps({"label": NAMES[label], "size": [9, 12]}).encode()

        tar(root / f"{split}-000000.tar", samples(rows_of(split), "json", described))


def wds_text(root: Path) -> None:
    for split in SIZES:
        members = samples(rows_of(split), "txt", lambda label: NAMES[label].encode() + b"\n", "ppm")
        tar(root / f"data/{split}/00000.tar", members)


def wds_folders_inside(root: Path) -> None:
    for split in SIZES:
        named = [(f"./{split}/{n}", c) for n, c in samples(rows_of(split), "cls", number)]
        tar(root / f"{split}.tar", named)


def wds_hidden(root: Path) -> None:
    tar(root / "train-000000.tar", samples(rows_of("train"), "cls", number))
    tar(root / "test-000000.tar", samples(rows_of("test"), "", number))


def wds_macos(root: Path) -> None:
    """Packed by tar on macOS, which puts a member of its own in front of many files."""
    for split in SIZES:
        members = samples(rows_of(split), "cls", number)
        marks = [(f"./._{name}", b"\0\5\x16\7") for name, _ in members[:4]]
        both = [one for pair in zip(marks, members[:4], strict=True) for one in pair]
        tar(root / f"{split}-0.tar", [*both, *members[4:]])


WEBDATASET = {
    "webdataset, shards": Layout("webdataset", wds_shards),
    "webdataset, clip-benchmark": Layout("webdataset", wds_clip_benchmark, ("train", "test")),
    "webdataset, json": Layout("webdataset", wds_json),
    "webdataset, txt": Layout("webdataset", wds_text),
    "webdataset, macOS": Layout("webdataset", wds_macos, names=("0", "1", "2")),
    "webdataset, folders inside": Layout(
        "webdataset", wds_folders_inside, names=("0", "1", "2")
    ),
    "webdataset, test without classes": Layout(
        "webdataset", wds_hidden, ("train",), ("0", "1", "2"), notes="test has 6 images without"
    ),
}  # fmt: skip


def arrays(
    split: str,
    names: tuple[str, str],
    shape: Callable[[Any], Any] = lambda x: x,
    column: bool = False,
    texts: bool = False,
) -> dict[str, Any]:
    rows = rows_of(split)
    labels: Any = np.array([label for _, label in rows], np.uint8)
    if texts:
        labels = np.array([NAMES[label] for _, label in rows])
    if column:
        labels = labels[:, None]
    return {names[0]: shape(np.stack([pixels(seed) for seed, _ in rows])), names[1]: labels}


def npz_medmnist(root: Path) -> None:
    found: dict[str, Any] = {}
    for split in SIZES:
        found |= arrays(split, (f"{split}_images", f"{split}_labels"), column=True)
    np.savez_compressed(root / "pathmnist.npz", **found)


def npz_keras(root: Path) -> None:
    found: dict[str, Any] = {}
    for split in ("train", "test"):
        found |= arrays(split, (f"x_{split}", f"y_{split}"))
    np.savez(root / "mine.npz", **found)
    (root / "classes.txt").write_text("\n".join(NAMES))


def npz_channels_first(root: Path) -> None:
    found: dict[str, Any] = {}
    for split in SIZES:
        names = (f"{split}X", f"{split}Y")
        found |= arrays(split, names, lambda x: x.transpose(0, 3, 1, 2).copy(), texts=True)
    np.savez(root / "mine.npz", **found)


def npz_fractions(root: Path) -> None:
    """Classes as whole numbers of another kind."""
    one = arrays("train", ("X", "y"))
    np.savez(root / "mine.npz", X=one["X"], y=one["y"].astype(float))


def npz_by_split(root: Path) -> None:
    for split in SIZES:
        np.savez(root / f"{split}.npz", **arrays(split, ("images", "labels")))


def npz_unnamed(root: Path) -> None:
    """KMNIST's: a file for each array, which nobody named."""
    for split in ("train", "test"):
        for role, array in arrays(split, ("imgs", "labels")).items():
            np.savez(root / f"mine-{split}-{role}.npz", array)


def npz_one(root: Path) -> None:
    np.savez(root / "one.npz", **arrays("train", ("data", "target"), texts=True))
    np.savez(root / "other.npz", **arrays("train", ("data", "target")))


NUMBERS = ("0", "1", "2")
NPZ = {
    "npz, MedMNIST": Layout("npz", npz_medmnist, names=NUMBERS),
    "npz, Keras": Layout("npz", npz_keras, ("train", "test")),
    "npz, channels first": Layout("npz", npz_channels_first, notes="channels first"),
    "npz, a file for each split": Layout("npz", npz_by_split, names=NUMBERS),
    "npz, KMNIST": Layout("npz", npz_unnamed, ("train", "test"), NUMBERS),
    "npz, fractions": Layout("npz", npz_fractions, ("train",), NUMBERS),
    "npz, root is a file": Layout("npz", npz_one, ("train",), root="one.npz"),
}


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(seed))


def tree(root: Path, folders: dict[str, str]) -> None:
    """Class folders below the folder of each split."""
    for split, folder in folders.items():
        for seed, label in rows_of(split):
            put(root / folder / NAMES[label] / f"{seed}.png", seed)


def folder_flat(root: Path) -> None:
    """As EuroSAT and Caltech-101 are unpacked, on macOS."""
    tree(root, {"train": "."})
    (root / f"__MACOSX/{NAMES[0]}").mkdir(parents=True)
    (root / f"__MACOSX/{NAMES[0]}/._0.png").write_bytes(b"\0\5\x16\7")
    (root / "README.txt").write_text("about")


def folder_loose_test(root: Path) -> None:
    """As in a competition: nobody knows the classes of test."""
    tree(root, {"train": "train", "val": "val"})
    for seed, _ in rows_of("test"):
        put(root / f"test/{seed}.png", seed)


FOLDER = {
    "folder": Layout("folder", lambda r: tree(r, {s: s for s in SIZES})),
    "folder, valid": Layout(
        "folder", lambda r: tree(r, {"train": "train", "val": "valid", "test": "test"})
    ),
    "folder, validation": Layout(
        "folder", lambda r: tree(r, {"train": "training", "val": "validation", "test": "testing"})
    ),
    "folder, dev": Layout(
        "folder", lambda r: tree(r, {"train": "Train", "val": "Dev", "test": "Test"})
    ),
    "folder, no val": Layout(
        "folder", lambda r: tree(r, {"train": "train", "test": "test"}), ("train", "test")
    ),
    "folder, no test": Layout(
        "folder", lambda r: tree(r, {"train": "train", "val": "val"}), ("train", "val")
    ),
    "folder, train alone": Layout("folder", lambda r: tree(r, {"train": "train"}), ("train",)),
    "folder, loose test": Layout(
        "folder", folder_loose_test, ("train", "val"), notes="test has 6 images without labels"
    ),
    "folder, flat": Layout("folder", folder_flat, ("train",)),
}


def vtab(
    root: Path,
    lists: Sequence[str] = ("train800", "val200", "test", "train800val200"),
    prefix: str = "images/",
    copies: bool = True,
) -> None:
    """A task as NOAH's program writes it: each list has its own copies of the images."""
    parts = {"train800": ["train"], "val200": ["val"], "test": ["test"]}
    parts["train800val200"] = ["train", "val"]
    for name in lists:
        lines = []
        rows = [(split, *row) for split in parts[name] for row in rows_of(split)]
        for i, (split, seed, label) in enumerate(rows):
            own = {"train": "train800", "val": "val200", "test": "test"}[split]
            start = SIZES["train"] if name == "train800val200" and split == "val" else 0
            path = f"{name}/{i:06d}.jpg" if copies else f"{own}/{i - start:06d}.jpg"
            put(root / "images" / path, seed)
            lines.append(f"{prefix}{path} {label}")
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


TWO = ("train800val200", "test")
LENGTHS = "VTAB's .* has"
TASK = tuple(map(str, range(10)))
VTAB = {
    "VTAB, NOAH and CVPT": Layout("vtab1k", vtab, names=NUMBERS),
    "VTAB, union without copies": Layout("vtab1k", lambda r: vtab(r, copies=False), names=NUMBERS),
    "VTAB, val200 missing": Layout(
        "vtab1k",
        lambda r: vtab(r, ("train800", *TWO)),
        names=NUMBERS,
        notes="val200.txt is missing; val is the last 6 lines of train800val200.txt",
    ),
    "VTAB, val200 missing, no copies": Layout(
        "vtab1k", lambda r: vtab(r, ("train800", *TWO), copies=False), names=NUMBERS, notes="val200"
    ),
    "VTAB, paths below images/": Layout("vtab1k", lambda r: vtab(r, prefix=""), names=NUMBERS),
    "VTAB, absolute paths": Layout(
        "vtab1k",
        lambda r: vtab(r, prefix="/home/me/data/vtab-1k/svhn/images/"),
        names=NUMBERS,
        notes="'/home/me/data/vtab-1k/svhn/' is dropped from the paths",
    ),
    "VTAB, paths from above": Layout(
        "vtab1k", lambda r: vtab(r, prefix="svhn/images/"), names=NUMBERS, notes="'svhn/' is dropp"
    ),
    "VTAB, SSF's folder name": Layout(
        "vtab1k", lambda r: vtab(r / "svhn_10"), names=TASK, root="svhn_10", notes=LENGTHS
    ),
    "VTAB, name of VPT": Layout(
        "vtab1k", lambda r: vtab(r / "vtab-svhn"), names=TASK, root="vtab-svhn", notes=LENGTHS
    ),
}


def pictures(root: Path, folders: dict[str, str], suffix: str = ".jpg") -> None:
    """The images of each split in its folder, without class folders."""
    for split, folder in folders.items():
        for seed, _ in rows_of(split):
            put(root / folder / f"{seed:04d}{suffix}", seed)


def csv_by_split(root: Path) -> None:
    """A header, quotes and names with commas."""
    pictures(root, dict.fromkeys(SIZES, "images"))
    for split in SIZES:
        lines = [f'"images/{seed:04d}.jpg","{NAMES[label]}"' for seed, label in rows_of(split)]
        (root / f"{split}.csv").write_text("\r\n".join(['"filename","label"', *lines]))


def csv_one(root: Path) -> None:
    """One list with a column of splits, between semicolons, with a mark in front."""
    pictures(root, dict.fromkeys(SIZES, "img"))
    lines = ["id;set;image_path;class"]
    words = {"train": "Train", "val": "valid", "test": "TEST"}
    for split in SIZES:
        lines += [f"{s};{words[split]};{s:04d}.jpg;{NAMES[n]}" for s, n in rows_of(split)]
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8-sig")


def csv_kaggle(root: Path, suffix: str = "") -> None:
    """train.csv and test.csv of a competition: images in folders, no class for test."""
    pictures(root, {"train": "train_images", "test": "test_images"})
    lines = [f"{seed:04d}{suffix},{label}" for seed, label in rows_of("train")]
    (root / "train.csv").write_text("\n".join(["image_id,label", *lines]))
    lines = [f"{seed:04d}{suffix}" for seed, _ in rows_of("test")]
    (root / "test.csv").write_text("\n".join(["image_id", *lines]))
    (root / "sample_submission.csv").write_text("image_id,label\n0200.jpg,0")
    (root / "label_num_to_disease_map.json").write_text('{"0": "a"}')


def csv_breeds(root: Path) -> None:
    """Two columns, of which only the first has a usual name."""
    pictures(root, {"train": "train"})
    lines = [f"{seed:04d},{NAMES[label]}" for seed, label in rows_of("train")]
    (root / "labels.csv").write_text("\n".join(["id,breed", *lines]))


def csv_told_kaggle(root: Path) -> None:
    """A class column of an unusual name, which test lacks; the archive is unpacked twice."""
    pictures(root, {"train": "pictures/pictures", "test": "pictures/pictures"})
    lines = [f"{seed:04d}.jpg,{NAMES[label]},3" for seed, label in rows_of("train")]
    (root / "train.csv").write_text("\n".join(["image,species,age", *lines]))
    lines = [f"{seed:04d}.jpg,3" for seed, _ in rows_of("test")]
    (root / "test.csv").write_text("\n".join(["image,age", *lines]))


def csv_told(root: Path) -> None:
    pictures(root, dict.fromkeys(SIZES, "scans"), ".png")
    for split in SIZES:
        lines = [f"{s:04d},{NAMES[n]},5,left" for s, n in rows_of(split)]
        (root / f"{split}.csv").write_text("\n".join(["scan,grade,age,eye", *lines]))


def csv_no_header(root: Path) -> None:
    pictures(root, dict.fromkeys(SIZES, "."))
    for split in SIZES:
        lines = [f"{seed:04d}.jpg, {label}" for seed, label in rows_of(split)]
        (root / f"{split}.csv").write_text("\n".join(lines))


def tsv(root: Path) -> None:
    pictures(root, dict.fromkeys(SIZES, "a folder"))
    for split in SIZES:
        lines = [f"a folder/{s:04d}.jpg\t{NAMES[n]}" for s, n in rows_of(split)]
        (root / f"{split}_list.tsv").write_text("\n".join(["path\tcategory", *lines]))


def txt(root: Path) -> None:
    """Lines as Caffe's, with paths that have spaces."""
    pictures(root, {split: f"jpg/of {split}" for split in SIZES})
    for split in SIZES:
        lines = [f"of {split}/{seed:04d}.jpg {label}" for seed, label in rows_of(split)]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text("\n".join(NAMES))


def txt_folders(root: Path) -> None:
    """As Food-101's meta/train.txt: class folder and name, no suffix."""
    tree(root, dict.fromkeys(("train", "test"), "images"))
    for split in ("train", "test"):
        lines = [f"{NAMES[label]}/{seed}" for seed, label in rows_of(split)]
        put_text(root / f"meta/{split}.txt", "\n".join(lines))


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def few_shot(root: Path, folder: str = "annotations/", images: str = "images") -> None:
    """NOAH's: lists of several shots and seeds, some of which name each image twice."""
    pictures(root, dict.fromkeys(SIZES, images))
    for shot in (1, 4):
        for number in range(3):
            rows = rows_of("train")[: 3 * shot]
            lines = [f"{seed:04d}.jpg {label}" for seed, label in rows for _ in range(1 + number)]
            name = f"{folder}train_meta.list.num_shot_{shot}.seed_{number}"
            put_text(root / name, "\n".join(lines) + "\n")
    for split in ("val", "test"):
        lines = [f"{seed:04d}.jpg {label}" for seed, label in rows_of(split)]
        put_text(root / f"{folder}{split}_meta.list", "\n".join(lines) + "\n")


def few_shot_apart(root: Path) -> None:
    """RepAdapter's: lists in the root, images of train and test apart."""
    few_shot(root, "", "images/test")
    pictures(root, {"train": "images/train"})


def json_vpt(root: Path) -> None:
    pictures(root, dict.fromkeys(SIZES, "images"))
    for split in SIZES:
        found = {f"{seed:04d}.jpg": NAMES[label] for seed, label in rows_of(split)}
        (root / f"{split}.json").write_text(json.dumps(found))


def json_coop(root: Path) -> None:
    """CoOp's: one file with [path, number, name] for each split."""
    pictures(root, dict.fromkeys(SIZES, "images"))
    found = {s: [[f"{i:04d}.jpg", n, NAMES[n]] for i, n in rows_of(s)] for s in SIZES}
    (root / "split_zhou_Mine.json").write_text(json.dumps(found))


def json_by_class(root: Path) -> None:
    """As Food-101's meta/train.json."""
    tree(root, dict.fromkeys(("train", "test"), "images"))
    for split in ("train", "test"):
        found: dict[str, list[str]] = {}
        for seed, label in rows_of(split):
            found.setdefault(NAMES[label], []).append(f"{NAMES[label]}/{seed}")
        put_text(root / f"meta/{split}.json", json.dumps(found))


def json_coco(root: Path) -> None:
    """iNaturalist's: images, annotations and categories."""
    for split, name in (("train", "train2018"), ("val", "val2018")):
        pictures(root, {split: f"train_val2018/{name}"})
        rows = rows_of(split)
        paths = [f"train_val2018/{name}/{seed:04d}.jpg" for seed, _ in rows]
        found = {
            "images": [{"id": s, "file_name": p} for (s, _), p in zip(rows, paths, strict=True)],
            "annotations": [{"id": s, "image_id": s, "category_id": 7 - n} for s, n in rows],
            "categories": [{"id": 7 - n, "name": name} for n, name in enumerate(NAMES)],
        }
        (root / f"{name}.json").write_text(json.dumps(found))


def jsonl_hub(root: Path) -> None:
    """metadata.jsonl of the Hub's image folders: one in each split's folder."""
    pictures(root, {"train": "train", "val": "validation", "test": "test"})
    for split, folder in {"train": "train", "val": "validation", "test": "test"}.items():
        rows = [{"file_name": f"{s:04d}.jpg", "label": n} for s, n in rows_of(split)]
        put_text(root / folder / "metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\n")


def csv_absolute(root: Path) -> None:
    pictures(root, dict.fromkeys(SIZES, "images"))
    for split in SIZES:
        lines = [f"/home/me/mine/images/{s:04d}.jpg,{NAMES[n]}" for s, n in rows_of(split)]
        (root / f"{split}.csv").write_text("\n".join(["path,label", *lines]))


def csv_parts(root: Path) -> None:
    """As HAM10000: ids in one table, images of two suffixes in two folders, an index in front."""
    lines = [",image_id,dx,age"]
    for i, (seed, label) in enumerate(rows_of("train")):
        put(root / f"images_part_{1 + i % 2}/{seed:04d}.{'jpg' if i < 6 else 'JPEG'}", seed)
        lines.append(f"{i},{seed:04d},{NAMES[label]},50")
    (root / "mine_metadata.csv").write_text("\n".join(lines))


FEW = "annotations/train_meta.list.num_shot_4.seed_0"
IMAGELIST = {
    "imagelist, csv": Layout("imagelist", csv_by_split),
    "imagelist, one csv": Layout("imagelist", csv_one),
    "imagelist, Kaggle": Layout(
        "imagelist", csv_kaggle, ("train",), NUMBERS, notes="test has 6 images without labels"
    ),
    "imagelist, Kaggle with suffix": Layout(
        "imagelist", lambda r: csv_kaggle(r, ".jpg"), ("train",), NUMBERS, notes="test has 6 im"
    ),
    "imagelist, Kaggle with a column told": Layout(
        "imagelist",
        csv_told_kaggle,
        ("train",),
        settings={"label_column": "species"},
        notes="test has 6 images without labels",
    ),
    "imagelist, breeds": Layout("imagelist", csv_breeds, ("train",)),
    "imagelist, columns told": Layout(
        "imagelist", csv_told, settings={"image_column": "scan", "label_column": "grade"}
    ),
    "imagelist, images in parts": Layout(
        "imagelist", csv_parts, ("train",), settings={"label_column": "dx"}
    ),
    "imagelist, no header": Layout("imagelist", csv_no_header, names=NUMBERS),
    "imagelist, tsv": Layout("imagelist", tsv),
    "imagelist, txt": Layout("imagelist", txt),
    "imagelist, txt of class folders": Layout("imagelist", txt_folders, ("train", "test")),
    "imagelist, NOAH's few-shot": Layout(
        "imagelist", few_shot, names=NUMBERS, settings={"train_list": FEW}
    ),
    "imagelist, NOAH's with repeats": Layout(
        "imagelist",
        few_shot,
        names=NUMBERS,
        settings={"train_list": FEW.replace("seed_0", "seed_1")},
        notes="seed_1 names 12 images of train again; each is read once",
    ),
    "imagelist, RepAdapter's few-shot": Layout(
        "imagelist", few_shot_apart, names=NUMBERS, settings={"train_list": FEW.partition("/")[2]}
    ),
    "imagelist, VPT's json": Layout("imagelist", json_vpt),
    "imagelist, CoOp's json": Layout("imagelist", json_coop),
    "imagelist, json by class": Layout("imagelist", json_by_class, ("train", "test")),
    "imagelist, iNaturalist": Layout("imagelist", json_coco, ("train", "val")),
    "imagelist, metadata.jsonl": Layout("imagelist", jsonl_hub, names=NUMBERS),
    "imagelist, absolute paths": Layout(
        "imagelist", csv_absolute, notes="'/home/me/mine/' is dropped from the paths"
    ),
}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def message(field: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def example(features: dict[str, bytes | int]) -> bytes:
    """A tf.train.Example."""
    entries = []
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = message(1, message(1, value))
        else:
            feature = message(3, message(1, varint(value)))
        entries.append(message(1, message(1, name.encode()), message(2, feature)))
    return message(1, *entries)


def tfrecord(path: Path, examples: Sequence[bytes]) -> None:
    """Records with their lengths; the checksums, which nobody reads here, are zero."""
    path.parent.mkdir(parents=True, exist_ok=True)
    framed = (len(one).to_bytes(8, "little") + bytes(4) + one + bytes(4) for one in examples)
    path.write_bytes(b"".join(framed))


def examples(split: str, label: str = "label") -> list[bytes]:
    return [
        example({"id": b"%d" % seed, "image": encoded(seed), label: of_class})
        for seed, of_class in rows_of(split)
    ]


def tfds_whole(root: Path) -> None:
    """cifar100/3.0.2 as tfds.load leaves it."""
    base = root / "3.0.2"
    train = examples("train")
    tfrecord(base / "cifar100-train.tfrecord-00000-of-00002", train[:5])
    tfrecord(base / "cifar100-train.tfrecord-00001-of-00002", train[5:])
    tfrecord(base / "cifar100-test.tfrecord-00000-of-00001", examples("test"))
    (base / "label.labels.txt").write_text("\n".join(NAMES) + "\n")
    (base / "dataset_info.json").write_text("{}")
    (base / "features.json").write_text("{}")


def tfds_validation(root: Path) -> None:
    for split, word in (("train", "train"), ("val", "validation"), ("test", "test")):
        name = f"mine-{word}.tfrecord-00000-of-00001"
        tfrecord(root / name, examples(split, "label_attributes"))


TFDS = {
    "tfds": Layout("tfds", tfds_whole, ("train", "test")),
    "tfds, root with the version": Layout("tfds", tfds_whole, ("train", "test"), root="3.0.2"),
    "tfds, validation": Layout(
        "tfds", tfds_validation, names=NUMBERS, settings={"label_column": "label_attributes"}
    ),
}

LAYOUTS = TFDS | PARQUET | WEBDATASET | NPZ | FOLDER | VTAB | IMAGELIST
