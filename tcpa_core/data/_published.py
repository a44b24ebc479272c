"""What is published of each data set: classes, sizes, licence, source, and how it is fetched.

One table for all that needs these facts: readers compare a copy with it, `tcpa data list` shows it,
`tcpa data get` follows it. A copy that differs is read all the same, and its user is told.

Source: the data sets' own pages and papers; splits named "hta" as in the programs of TCPA, DAM-VP
and VPT, "vtab1k" as in arXiv:1910.04867.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class Sizes(NamedTuple):
    """Images of each split; 0: the distributor has none, and it is drawn from train."""

    train: int
    val: int
    test: int


class Torchvision(NamedTuple):
    """A class of torchvision.datasets that downloads and checks what it reads."""

    name: str
    calls: tuple[Mapping[str, Any], ...] = ({},)
    """Arguments beside `root` and `download`, one call for each part."""


Pictures = Literal["JPEG", "PNG", "PPM", "TIFF", "arrays"]
"""How the distributor stores pictures; "arrays": as numbers in a larger file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data set as its authors distribute it."""

    title: str
    kinds: tuple[str, ...]
    """Values of data.name that read it, that of its own layout first."""
    classes: int
    splits: Mapping[str, Sizes]
    """By name: "official" is the distributor's, "hta" as the ten sets of TCPA are split."""
    pictures: Pictures
    licence: str
    source: str
    """Address of its page."""
    torchvision: Torchvision | None = None
    hub: str | None = None
    """Repository of Parquet files on huggingface.co/datasets."""
    steps: tuple[str, ...] = ()
    """How to fetch it by hand, where nothing else does or as another way."""
    unpacked: str = ""
    """Folder that the steps end with, below the one where they are done; "": that one."""
    folders: tuple[str, ...] = field(default=())
    """Names that its folders and repositories go by, as `alike` spells them."""


_NOT_STATED = "none stated; cite the authors, ask them before other than research use"
_IMAGENET = "pictures are ImageNet's: non-commercial research and education only"
_BOTH: tuple[Mapping[str, Any], ...] = ({"split": "train"}, {"split": "test"})

PUBLISHED: Mapping[str, Published] = {
    "cifar10": Published(
        title="CIFAR-10", kinds=("cifar10", "parquet"), classes=10,
        splits={"official": Sizes(50000, 0, 10000), "hta": Sizes(40000, 10000, 10000)},
        pictures="arrays", licence=_NOT_STATED,
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        torchvision=Torchvision("CIFAR10"), hub="uoft-cs/cifar10",
        folders=("cifar10", "cifar10batchespy"),
    ),
    "cifar100": Published(
        title="CIFAR-100", kinds=("cifar100", "parquet"), classes=100,
        splits={"official": Sizes(50000, 0, 10000), "hta": Sizes(40000, 10000, 10000)},
        pictures="arrays", licence=_NOT_STATED,
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        torchvision=Torchvision("CIFAR100"), hub="uoft-cs/cifar100",
        folders=("cifar100", "cifar100python"),
    ),
    "svhn": Published(
        title="SVHN (cropped digits)", kinds=("svhn", "parquet"), classes=10,
        splits={"official": Sizes(73257, 0, 26032), "hta": Sizes(58605, 14652, 26032)},
        pictures="arrays", licence="non-commercial use only",
        source="http://ufldl.stanford.edu/housenumbers/",
        torchvision=Torchvision("SVHN", _BOTH), hub="ufldl-stanford/svhn",
        folders=("svhn", "streetviewhousenumbers"),
    ),
    "dtd": Published(
        title="Describable Textures (DTD), partition 1", kinds=("dtd", "parquet"), classes=47,
        splits={"official": Sizes(1880, 1880, 1880), "hta": Sizes(1880, 1880, 1880)},
        pictures="JPEG", licence="research purposes",
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        torchvision=Torchvision("DTD"), hub="tanganke/dtd",
        folders=("dtd", "dtdr101", "describabletextures"),
    ),
    "food101": Published(
        title="Food-101", kinds=("food101", "parquet"), classes=101,
        splits={"official": Sizes(75750, 0, 25250), "hta": Sizes(60600, 15150, 25250)},
        pictures="JPEG",
        licence="pictures belong to their owners; beyond scientific fair use ask them",
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        torchvision=Torchvision("Food101"), hub="ethz/food101", folders=("food101",),
    ),
    "gtsrb": Published(
        title="German Traffic Signs (GTSRB)", kinds=("gtsrb", "parquet"), classes=43,
        splits={
            "official": Sizes(26640, 0, 12630), "hta": Sizes(21312, 5328, 12630),
            "final training": Sizes(39209, 0, 12630),  # the archive of 2011; the other is of IJCNN
        },
        pictures="PPM", licence=_NOT_STATED, source="https://benchmark.ini.rub.de/",
        torchvision=Torchvision("GTSRB", _BOTH), hub="tanganke/gtsrb",
        folders=("gtsrb", "germantrafficsigns"),
    ),
    "flowers102": Published(
        title="Oxford Flowers-102", kinds=("flowers102", "fgvc", "parquet"), classes=102,
        splits={"official": Sizes(1020, 1020, 6149), "hta": Sizes(1020, 1020, 6149)},
        pictures="JPEG", licence=_NOT_STATED,
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        torchvision=Torchvision("Flowers102"), hub="dpdl-benchmark/oxford_flowers102",
        folders=("flowers102", "oxfordflower", "oxfordflowers", "oxfordflowers102", "102flowers"),
    ),
    "cub": Published(
        title="CUB-200-2011", kinds=("cub", "fgvc"), classes=200,
        splits={"official": Sizes(5994, 0, 5794), "hta": Sizes(5394, 600, 5794)},
        pictures="JPEG", licence="non-commercial research and education only",
        source="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        steps=(
            "download CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158",
            "tar xf CUB_200_2011.tgz",
            "data.root is the folder CUB_200_2011, which has images.txt and images/",
        ),
        unpacked="CUB_200_2011",
        folders=("cub", "cub200", "cub2002011", "caltechbirds"),
    ),
    "nabirds": Published(
        title="NABirds", kinds=("nabirds", "fgvc"), classes=555,
        splits={"official": Sizes(23929, 0, 24633), "hta": Sizes(21536, 2393, 24633)},
        pictures="JPEG", licence="non-commercial research only, by its terms of use",
        source="https://dl.allaboutbirds.org/nabirds",
        steps=(
            "agree to the terms at https://dl.allaboutbirds.org/nabirds, download nabirds.tar.gz",
            "tar xf nabirds.tar.gz",
            "data.root is the folder nabirds, which has images.txt and images/",
        ),
        unpacked="nabirds",
        folders=("nabirds",),
    ),
    "stanford_dogs": Published(
        title="Stanford Dogs", kinds=("stanford_dogs", "fgvc"), classes=120,
        splits={"official": Sizes(12000, 0, 8580), "hta": Sizes(10800, 1200, 8580)},
        pictures="JPEG", licence=_IMAGENET,
        source="http://vision.stanford.edu/aditya86/ImageNetDogs/",
        steps=(
            "download images.tar and lists.tar from "
            "http://vision.stanford.edu/aditya86/ImageNetDogs/",
            "unpack both into one folder, which then has Images/ and train_list.mat",
            "data.root is that folder",
        ),
        folders=("stanforddogs", "dogs", "imagenetdogs"),
    ),
    "stanford_cars": Published(
        title="Stanford Cars", kinds=("stanford_cars", "fgvc", "parquet"), classes=196,
        splits={"official": Sizes(8144, 0, 8041), "hta": Sizes(7329, 815, 8041)},
        pictures="JPEG", licence="research purposes only",
        source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (offline)",
        hub="tanganke/stanford_cars",
        steps=(
            "its page is offline; copies have cars_train/, cars_test/, devkit/ and "
            "cars_test_annos_withlabels.mat, or car_ims/ and cars_annos.mat",
            "put them into one folder; data.root is that folder",
        ),
        folders=("stanfordcars", "cars", "cars196"),
    ),
    "pets": Published(
        title="Oxford-IIIT Pets", kinds=("pets", "parquet"), classes=37,
        splits={"official": Sizes(3680, 0, 3669)},
        pictures="JPEG", licence="CC BY-SA 4.0",
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        torchvision=Torchvision("OxfordIIITPet", ({"split": "trainval"},)),
        hub="timm/oxford-iiit-pet",
        folders=("pets", "oxfordpets", "oxfordiiitpet", "oxfordiiitpets"),
    ),
    "eurosat": Published(
        title="EuroSAT (RGB)", kinds=("eurosat", "parquet"), classes=10,
        splits={"official": Sizes(27000, 0, 0)},
        pictures="JPEG", licence="MIT; pictures: Copernicus Sentinel data, free to use",
        source="https://github.com/phelber/EuroSAT",
        torchvision=Torchvision("EuroSAT"), hub="timm/eurosat-rgb",
        folders=("eurosat", "eurosatrgb"),
    ),
    "caltech101": Published(
        title="Caltech-101 with its background class", kinds=("caltech101", "parquet"),
        classes=102, splits={"official": Sizes(9144, 0, 0)},
        pictures="JPEG", licence="CC BY 4.0", source="https://data.caltech.edu/records/mzrjq-6wc02",
        torchvision=Torchvision("Caltech101"), hub="flwrlabs/caltech101",
        folders=("caltech101", "101objectcategories"),
    ),
    "sun397": Published(
        title="SUN397", kinds=("sun397", "parquet"), classes=397,
        splits={"official": Sizes(108754, 0, 0)},
        pictures="JPEG", licence=_NOT_STATED,
        source="https://vision.princeton.edu/projects/2010/SUN/",
        torchvision=Torchvision("SUN397"), hub="tanganke/sun397", folders=("sun397",),
    ),
    "resisc45": Published(
        title="NWPU-RESISC45", kinds=("resisc45", "parquet"), classes=45,
        splits={"official": Sizes(31500, 0, 0), "tfds": Sizes(18900, 6300, 6300)},
        pictures="JPEG", licence="research purposes",
        source="https://gcheng-nwpu.github.io/",
        hub="timm/resisc45",
        steps=(
            "download NWPU-RESISC45.rar from the links of https://gcheng-nwpu.github.io/",
            "unpack it; data.root is the folder NWPU-RESISC45, which has one folder a class",
        ),
        unpacked="NWPU-RESISC45",
        folders=("resisc45", "nwpuresisc45"),
    ),
    "aircraft": Published(
        title="FGVC-Aircraft, variants", kinds=("aircraft",), classes=100,
        splits={"official": Sizes(3334, 3333, 3333)},
        pictures="JPEG", licence="non-commercial research only",
        source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        torchvision=Torchvision("FGVCAircraft"),
        steps=(
            "download fgvc-aircraft-2013b.tar.gz from "
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/",
            "tar xf fgvc-aircraft-2013b.tar.gz",
            "data.root is the folder fgvc-aircraft-2013b, which has data/",
        ),
        unpacked="fgvc-aircraft-2013b",
        folders=("aircraft", "fgvcaircraft", "fgvcaircraft2013b"),
    ),
    "pcam": Published(
        title="PatchCamelyon", kinds=("parquet",), classes=2,
        splits={"official": Sizes(262144, 32768, 32768)},
        pictures="arrays", licence="CC0", source="https://github.com/basveeling/pcam",
        hub="1aurent/PatchCamelyon",
        steps=(
            "its .h5 files are not read: take the Parquet files of "
            "https://huggingface.co/datasets/1aurent/PatchCamelyon",
            "data.name=parquet, data.root is their folder",
        ),
        folders=("pcam", "patchcamelyon", "pcamv1"),
    ),
    "imagenette": Published(
        title="Imagenette", kinds=("imagenette",), classes=10,
        splits={"official": Sizes(9469, 0, 3925)},
        pictures="JPEG", licence=_IMAGENET, source="https://github.com/fastai/imagenette",
        torchvision=Torchvision("Imagenette", ({"split": "train", "size": "320px"},)),
        folders=("imagenette", "imagenette2", "imagenette2320", "imagenette2160"),
    ),
    "tiny_imagenet": Published(
        title="Tiny ImageNet", kinds=("tiny_imagenet", "parquet"), classes=200,
        splits={"official": Sizes(100000, 0, 10000)},  # its test split has no labels: val is it
        pictures="JPEG", licence=_IMAGENET, source="http://cs231n.stanford.edu/",
        hub="zh-plus/tiny-imagenet",
        steps=(
            "download http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "unzip it; data.root is the folder tiny-imagenet-200",
        ),
        unpacked="tiny-imagenet-200",
        folders=("tinyimagenet", "tinyimagenet200"),
    ),
}  # fmt: skip
"""By key, which is the value of data.name where that reads the set's own layout."""


class VtabTask(NamedTuple):
    """A task of VTAB-1k: 800 images for train, 200 for val, and a whole test split."""

    classes: int
    test: int
    pictures: Pictures
    """Of the data set that the task is made from."""


VTAB_TASKS: Mapping[str, VtabTask] = {
    "caltech101": VtabTask(102, 6084, "JPEG"),
    "cifar": VtabTask(100, 10000, "arrays"),
    "clevr_count": VtabTask(8, 15000, "PNG"),
    "clevr_dist": VtabTask(6, 15000, "PNG"),
    "diabetic_retinopathy": VtabTask(5, 42670, "JPEG"),
    "dmlab": VtabTask(6, 22735, "JPEG"),
    "dsprites_loc": VtabTask(16, 73728, "arrays"),
    "dsprites_ori": VtabTask(16, 73728, "arrays"),
    "dtd": VtabTask(47, 1880, "JPEG"),
    "eurosat": VtabTask(10, 5400, "JPEG"),
    "kitti": VtabTask(4, 711, "PNG"),
    "oxford_flowers102": VtabTask(102, 6149, "JPEG"),
    "oxford_iiit_pet": VtabTask(37, 3669, "JPEG"),
    "patch_camelyon": VtabTask(2, 32768, "arrays"),
    "resisc45": VtabTask(45, 6300, "JPEG"),
    "smallnorb_azi": VtabTask(18, 12150, "arrays"),
    "smallnorb_ele": VtabTask(9, 12150, "arrays"),
    "sun397": VtabTask(397, 21750, "JPEG"),
    "svhn": VtabTask(10, 26032, "arrays"),
}
"""The 19 tasks by folder name."""


def alike(name: str) -> str:
    """A folder's or repository's name without what copies spell differently: "CUB_200_2011" is
    "cub2002011"; "uoft-cs/cifar100", and its folder "datasets--uoft-cs--cifar100", "cifar100"."""
    return re.sub(r"[^a-z0-9]", "", re.split("/|--", name)[-1].lower())


def published_key(name: str) -> str | None:
    """The data set of `PUBLISHED` that a folder or repository is named after; None: no such."""
    wanted = alike(name)
    return next((key for key, one in PUBLISHED.items() if wanted in one.folders), None)
