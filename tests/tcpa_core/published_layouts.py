"""Published data sets in miniature: the real names of files, keys and columns, own pixels."""

import io
import json
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from tests.tcpa_core.data_layouts import picture

CLASSES = 3
TRAIN = 4
"""Pictures of each class in train; val and test have two."""
OTHER = 2


def rows(count: int) -> list[tuple[int, int]]:
    """Class and number of each picture, one class after the other."""
    return [(c, i) for c in range(CLASSES) for i in range(count)]


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as texts of Python 2, as CIFAR's files have them."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value: object) -> bytes:
    file = io.BytesIO()
    Python2(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def cifar_file(count: int, seed: int, **keys: list[int]) -> dict[bytes, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    labels: dict[bytes, Any] = {name.encode(): values for name, values in keys.items()}
    return {b"data": pixels, **labels}


def cifar10(root: Path) -> None:
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        held = cifar_file(6, i, labels=[k % CLASSES for k in range(6)])
        held |= {b"batch_label": b"one", b"filenames": [b"a_s_%d.png" % k for k in range(6)]}
        (base / name).write_bytes(python2_pickle(held))
    names = [b"airplane", b"automobile", b"bird"]
    meta = {b"num_cases_per_batch": 6, b"label_names": names, b"num_vis": 3072}
    (base / "batches.meta").write_bytes(python2_pickle(meta))


def cifar100(root: Path) -> None:
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    for name, count in (("train", 15), ("test", 6)):
        fine = [k % CLASSES for k in range(count)]
        held = cifar_file(count, count, fine_labels=fine, coarse_labels=[0] * count)
        (base / name).write_bytes(python2_pickle(held))
    meta = {b"fine_label_names": [b"apple", b"aquarium_fish", b"baby"],
            b"coarse_label_names": [b"fruit"]}  # fmt: skip
    (base / "meta").write_bytes(python2_pickle(meta))


def svhn(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for i, (name, count) in enumerate((("train", 30), ("test", 10))):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.array([[k % 10 or 10] for k in range(count)], np.uint8)
        file = {"X": pixels, "y": labels}
        savemat(root / f"{name}_32x32.mat", file, do_compression=True)


def dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for offset, split in enumerate(("train", "val", "test")):
        names = []
        for c, i in rows(TRAIN):
            name = ("banded", "blotchy", "zigzagged")[c]
            names.append(f"{name}/{name}_{10 * offset + i:04d}.jpg")
            picture(base / "images" / names[-1], 1000 * offset + 10 * c + i)
        (base / "labels").mkdir(exist_ok=True)
        (base / "labels" / f"{split}1.txt").write_text("\n".join(names) + "\n")


def food101(root: Path) -> None:
    base = root / "food-101"
    for offset, (split, count) in enumerate((("train", 5), ("test", OTHER))):
        found: dict[str, list[str]] = {}
        for c, i in rows(count):
            name = ("apple_pie", "baby_back_ribs", "waffles")[c]
            found.setdefault(name, []).append(f"{name}/{1005649 + 100 * offset + i}")
            picture(base / "images" / f"{found[name][-1]}.jpg", 1000 * offset + 10 * c + i)
        (base / "meta").mkdir(exist_ok=True)
        (base / "meta" / f"{split}.json").write_text(json.dumps(found))
        lines = [one for of in found.values() for one in of]
        (base / "meta" / f"{split}.txt").write_text("\n".join(lines))


def gtsrb_pictures(base: Path, train: str, *, digits: int = 5, suffix: str = "ppm") -> None:
    for c, i in rows(9):  # three tracks of three frames
        name = f"{i // 3:05d}_{i % 3:05d}.{suffix}"
        picture(base / train / f"{c:0{digits}d}" / name, 10 * c + i)


def gtsrb(root: Path) -> None:
    base = root / "gtsrb" / "GTSRB"
    gtsrb_pictures(base, "Training")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for c, i in rows(OTHER):
        name = f"{OTHER * c + i:05d}.ppm"
        lines.append(f"{name};9;12;1;1;8;8;{c}")
        picture(base / "Final_Test" / "Images" / name, 1000 + 10 * c + i)
        (base / "Training" / f"{c:05d}" / f"GT-{c:05d}.csv").write_text(lines[0])
    (base.parent / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


def gtsrb_official(root: Path) -> None:
    """The archives of 2011; their list of test has no classes, which come apart."""
    base = root / "GTSRB"
    gtsrb_pictures(base, "Final_Training/Images")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for c, i in rows(OTHER):
        name = f"{OTHER * c + i:05d}.ppm"
        lines.append(f"{name};9;12;1;1;8;8;{c}")
        picture(base / "Final_Test" / "Images" / name, 1000 + 10 * c + i)
    bare = "\n".join(line.rpartition(";")[0] for line in lines)
    (base / "Final_Test" / "Images" / "GT-final_test.test.csv").write_text(bare)
    (root / "GT-final_test.csv").write_text("\r\n".join(lines))


def gtsrb_kaggle(root: Path) -> None:
    gtsrb_pictures(root, "Train", digits=1, suffix="png")
    lines = ["Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"]
    for c, i in rows(OTHER):
        name = f"Test/{OTHER * c + i:05d}.png"
        lines.append(f"9,12,1,1,8,8,{c},{name}")
        picture(root / name, 1000 + 10 * c + i)
    (root / "Test.csv").write_text("\n".join(lines))
    (root / "Meta").mkdir()


def flowers102(root: Path) -> None:
    base = root / "flowers-102"
    every = 3 * TRAIN * CLASSES
    for i in range(every):
        picture(base / "jpg" / f"image_{i + 1:05d}.jpg", i)
    labels = np.arange(every, dtype=np.uint8)[None] % CLASSES + 1
    savemat(base / "imagelabels.mat", {"labels": labels})
    third = every // 3
    ids = np.arange(1, every + 1, dtype=np.uint16)[None]
    sets = {
        "trnid": ids[:, :third],
        "valid": ids[:, third : 2 * third],
        "tstid": ids[:, 2 * third :],
    }
    savemat(base / "setid.mat", sets)


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]


def _structs(file: Path, name: str, records: list[dict[str, Any]], **more: Any) -> None:
    kinds = [(field, object) for field in records[0]]
    held = np.array([tuple(record.values()) for record in records], dtype=kinds)
    savemat(file, {name: held[None], **more})


def _cells(names: list[str]) -> Any:
    return np.array(names, dtype=object)[None]


def stanford_cars(root: Path) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    for offset, (split, count) in enumerate((("train", TRAIN), ("test", OTHER))):
        records = []
        for k, (c, i) in enumerate(rows(count)):
            picture(base / f"cars_{split}" / f"{k + 1:05d}.jpg", 1000 * offset + 10 * c + i)
            box = {f"bbox_{side}": np.uint8(1) for side in ("x1", "y1", "x2", "y2")}
            records.append({**box, "class": np.uint8(c + 1), "fname": f"{k + 1:05d}.jpg"})
        name = (
            "devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
        )
        _structs(base / name, "annotations", records)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": _cells(CARS)})


def stanford_cars_one_folder(root: Path) -> None:
    records = []
    for k, (c, i) in enumerate(rows(TRAIN + OTHER)):
        name = f"car_ims/{k + 1:06d}.jpg"
        picture(root / name, 10 * c + i)
        is_test = np.uint8(i >= TRAIN)
        records.append({"relative_im_path": name, "class": np.uint8(c + 1), "test": is_test})
    _structs(root / "cars_annos.mat", "annotations", records, class_names=_cells(CARS))


def stanford_cars_kaggle(root: Path) -> None:
    """Folders twice, the list of test in devkit/."""
    stanford_cars(root / "once")
    base = root / "once" / "stanford_cars"
    for split in ("train", "test"):
        (root / f"cars_{split}").mkdir()
        (base / f"cars_{split}").rename(root / f"cars_{split}" / f"cars_{split}")
    (base / "devkit").rename(root / "devkit")
    name = "cars_test_annos_withlabels.mat"
    (base / name).rename(root / "devkit" / name)


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for offset, (split, count) in enumerate((("trainval", TRAIN), ("test", OTHER))):
        lines = []
        for c, i in rows(count):
            name = (
                f"{('Abyssinian', 'american_bulldog', 'yorkshire_terrier')[c]}_{100 * offset + i}"
            )
            picture(base / "images" / f"{name}.jpg", 1000 * offset + 10 * c + i)
            lines.append(f"{name} {c + 1} {1 + (c > 0)} {max(c, 1)}")
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    (base / "annotations" / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n")


def pets_kaggle(root: Path) -> None:
    """Each folder in one of the same name."""
    pets(root)
    for folder in ("images", "annotations"):
        (root / "oxford-iiit-pet" / folder).rename(root / "inner")
        (root / folder).mkdir()
        (root / "inner").rename(root / folder / folder)
    (root / "oxford-iiit-pet").rmdir()


def _birds(base: Path, ids: list[str], folders: list[str], classes: list[str], name: str) -> None:
    images, split, labels = [], [], []
    for k, (c, i) in enumerate(rows(TRAIN + OTHER)):
        path = f"{folders[c]}/{name.format(k)}.jpg"
        picture(base / "images" / path, 10 * c + i)
        one = str(k + 1) if ids[0] == "1" else name.format(k)
        images.append(f"{one} {path}")
        split.append(f"{one} {int(i < TRAIN)}")
        labels.append(f"{one} {ids[c]}")
    for file, lines in (("images", images), ("train_test_split", split),
                        ("image_class_labels", labels), ("classes", classes)):  # fmt: skip
        (base / f"{file}.txt").write_text("\n".join(lines) + "\n")


def cub(root: Path) -> None:
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    classes = [f"{c + 1} {name}" for c, name in enumerate(names)]
    _birds(root / "CUB_200_2011", ["1", "2", "3"], names, classes, "Albatross_{:04d}")


def nabirds(root: Path) -> None:
    base = root / "nabirds"
    classes = ["0 Birds", "1 Ducks, Geese, and Swans", "295 American Black Duck", "296 Mallard",
               "817 Oak Titmouse"]  # fmt: skip
    name = "0000139e-21dc-4d0c-bfe1-{:012d}"
    _birds(base, ["295", "296", "817"], ["0295", "0296", "0817"], classes, name)
    (base / "hierarchy.txt").write_text("1 0\n295 1\n296 1\n817 0\n")


def stanford_dogs(root: Path) -> None:
    for offset, (split, count) in enumerate((("train", TRAIN), ("test", OTHER))):
        files, labels = [], []
        for c, i in rows(count):
            breed = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02116738-dhole")[c]
            files.append(f"{breed}/{breed.partition('-')[0]}_{100 * offset + i}.jpg")
            labels.append([c + 1])
            picture(root / "Images" / files[-1], 1000 * offset + 10 * c + i)
        held = {"file_list": _cells(files).T, "annotation_list": _cells(files).T,
                "labels": np.array(labels, np.uint8)}  # fmt: skip
        savemat(root / f"{split}_list.mat", held)


def class_folders(base: Path, names: tuple[str, ...], file: str) -> None:
    for c, i in rows(5):
        picture(base / names[c] / file.format(names[c], i + 1), 10 * c + i)


def eurosat(root: Path) -> None:
    class_folders(root / "eurosat" / "2750", ("AnnualCrop", "Forest", "SeaLake"), "{}_{}.jpg")


def resisc45(root: Path) -> None:
    names = ("airplane", "palace", "wetland")
    class_folders(root / "NWPU-RESISC45", names, "{}_{:03d}.jpg")


def caltech101(root: Path) -> None:
    base = root / "caltech101" / "101_ObjectCategories"
    class_folders(base, ("BACKGROUND_Google", "accordion", "yin_yang"), "image_{1:04d}.jpg")
    (base / "BACKGROUND_Google" / "tmp").write_text("")


def sun397(root: Path) -> None:
    base = root / "SUN397"
    names = ("a/abbey", "a/apartment_building/outdoor", "z/zoo")
    class_folders(base, names, "sun_aaalbzqrimafwbiv{1}.jpg")
    (base / "ClassName.txt").write_text("".join(f"/{name}\n" for name in names))


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    for offset, split in enumerate(("train", "val", "test")):
        lines = []
        for c, i in rows(TRAIN):
            name = f"{1025794 + 100 * offset + 10 * c + i:07d}"
            picture(base / "images" / f"{name}.jpg", 1000 * offset + 10 * c + i)
            lines.append(f"{name} {('707-320', 'A300B4', 'Yak-42')[c]}")
        (base / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
    (base / "variants.txt").write_text("707-320\nA300B4\nYak-42\n")


def imagenette(root: Path) -> None:
    names = ("n01440764", "n02102040", "n03888257")
    for split, seed in (("train", 0), ("val", 500)):
        for c, i in rows(TRAIN):
            file = f"{names[c]}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{c}{i}.JPEG"
            picture(root / "imagenette2-320" / split / names[c] / file, seed + 10 * c + i)


def tiny_imagenet(root: Path) -> None:
    base = root / "tiny-imagenet-200"
    names = ("n01443537", "n01629819", "n12267677")
    lines = []
    for c, i in rows(TRAIN):
        picture(base / "train" / names[c] / "images" / f"{names[c]}_{i}.JPEG", 10 * c + i)
        (base / "train" / names[c] / f"{names[c]}_boxes.txt").write_text("")
        picture(base / "val" / "images" / f"val_{10 * c + i}.JPEG", 1000 + 10 * c + i)
        lines.append(f"val_{10 * c + i}.JPEG\t{names[c]}\t0\t32\t44\t62")
    (base / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (base / "wnids.txt").write_text("\n".join(names) + "\n")
    (base / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")


WRITERS: Mapping[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (
        cifar10, cifar100, svhn, dtd, food101, gtsrb, flowers102, stanford_cars, pets, cub, nabirds,
        stanford_dogs, eurosat, resisc45, caltech101, sun397, aircraft, imagenette, tiny_imagenet,
    )
}  # fmt: skip
"""Layouts by data.name, as torchvision or the distributor's archive leaves them below data.root."""

VARIANTS: Mapping[str, tuple[str, Callable[[Path], None]]] = {
    "gtsrb, archives of 2011": ("gtsrb", gtsrb_official),
    "gtsrb, Kaggle": ("gtsrb", gtsrb_kaggle),
    "pets, Kaggle": ("pets", pets_kaggle),
    "cars, car_ims": ("stanford_cars", stanford_cars_one_folder),
    "cars, Kaggle": ("stanford_cars", stanford_cars_kaggle),
}
"""Further forms in which a set circulates: data.name and what writes it."""

UNPACKED = {
    "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "dtd": "dtd/dtd",
    "food101": "food-101", "gtsrb": "gtsrb/GTSRB", "flowers102": "flowers-102",
    "stanford_cars": "stanford_cars", "pets": "oxford-iiit-pet", "cub": "CUB_200_2011",
    "nabirds": "nabirds", "eurosat": "eurosat/2750", "resisc45": "NWPU-RESISC45",
    "caltech101": "caltech101/101_ObjectCategories", "sun397": "SUN397",
    "aircraft": "fgvc-aircraft-2013b/data", "imagenette": "imagenette2-320",
    "tiny_imagenet": "tiny-imagenet-200",
}  # fmt: skip
"""The folder itself in which the layout begins, where it is not data.root."""
