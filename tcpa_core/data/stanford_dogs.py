"""Stanford Dogs as images.tar and lists.tar unpack: Images/, train_list.mat and test_list.mat.

`data.root` is the folder that holds them. There is no val: data.val_fraction of each class of train
is drawn, or with data.split=hta what VPT's val.json names, which is looked for in data.splits_dir,
or beside the images.

Source: A. Khosla et al., "Novel Dataset for Fine-Grained Image Categorization", 2011.
"""

from pathlib import Path

from tcpa_core.data._mat import numbers, read_mat, texts
from tcpa_core.data._official import OfficialKind, Parts, part, ranks
from tcpa_core.errors import DataError

IMAGES = ("images/Images", "Images", "images")


def _parts(base: Path) -> Parts:
    lists = base if (base / "train_list.mat").is_file() else base / "lists"
    files, labels = {}, {}
    for split in ("train", "test"):
        path = lists / f"{split}_list.mat"
        held = read_mat(path, ["file_list", "labels"])
        files[split], labels[split] = texts(held["file_list"]), numbers(path, held["labels"])
        if len(files[split]) != len(labels[split]):
            raise DataError(
                f"{path} names {len(files[split])} pictures and {len(labels[split])} labels; "
                "restore it."
            )
    names = {
        str(label): file.partition("/")[0]
        for split in files
        for file, label in zip(files[split], labels[split], strict=True)
    }
    rank = ranks(names)
    return Parts(
        root=next(base / name for name in IMAGES if (base / name).is_dir()),
        class_names=tuple(names[number] for number in rank),
        class_source="train_list.mat and test_list.mat",
        splits={
            split: part(
                [(f"{split}_list.mat", file) for file in files[split]],
                [rank[str(label)] for label in labels[split]],
                f"{split}_list.mat",
            )
            for split in files
        },
    )


USES = ("splits_dir",)

_KIND = OfficialKind(
    key="stanford_dogs",
    places=("", "stanford_dogs", "Stanford-dogs", "stanford-dogs", "StanfordDogs", "dogs"),
    marks=(
        "|".join(IMAGES),
        "train_list.mat|lists/train_list.mat",
        "test_list.mat|lists/test_list.mat",
    ),
    parts=_parts,
    hta="vpt",
)
read = _KIND.read
recognises = _KIND.recognises
idle = _KIND.idle
deviations = _KIND.deviations
