"""The files that torchvision.datasets downloads, where it looks for them, and their checksums.

Stated here and not asked of torchvision, which gives some of them in the body of functions only and
none of their sizes; a test compares them with the version that is installed. Sets that torchvision
fetches from Google Drive or without a checksum are not among them.
"""

from collections.abc import Mapping

from search.downloads.fetch import Remote


def _archive(url: str, folder: str, size: int, md5: str) -> Remote:
    return _file(url, folder, size, md5, unpacks=True)


def _file(url: str, folder: str, size: int, md5: str, *, unpacks: bool = False) -> Remote:
    name = url.rpartition("/")[2]
    path = f"{folder}/{name}" if folder else name
    return Remote(url=url, path=path, size=size, digest=f"md5:{md5}", unpacks=unpacks)


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
_EUROSAT = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
    "c877bcd43f099cd0196738f714544e355477f3fd"
)

ARCHIVES: Mapping[str, tuple[Remote, ...]] = {
    "cifar10": (
        _archive("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "",
                 170_498_071, "c58f30108f718f92721af3b95e74349a"),
    ),
    "cifar100": (
        _archive("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "",
                 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85"),
    ),
    "svhn": (
        _file(f"{_SVHN}/train_32x32.mat", "", 182_040_794, "e26dedcc434d2e4c54c9b2d4a06d8373"),
        _file(f"{_SVHN}/test_32x32.mat", "", 64_275_384, "eb5a983be6a315427106f1b164d9cef3"),
    ),
    "dtd": (
        _archive(f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz", "dtd",
                 625_239_812, "fff73e5086ae6bdbea199a49dfb8a4c1"),
    ),
    "food101": (
        _archive("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "",
                 4_996_278_331, "85eeb15f3717b99a5da872d97d918f87"),
    ),
    "gtsrb": (
        _archive(f"{_GTSRB}/GTSRB-Training_fixed.zip", "gtsrb",
                 187_490_228, "513f3c79a4c5141765e10e952eaa2478"),
        _archive(f"{_GTSRB}/GTSRB_Final_Test_Images.zip", "gtsrb",
                 88_978_620, "c7e4e6327067d32654124b0fe9e82185"),
        _archive(f"{_GTSRB}/GTSRB_Final_Test_GT.zip", "gtsrb",
                 99_620, "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    ),
    "flowers102": (
        _archive(f"{_VGG}/flowers/102/102flowers.tgz", "flowers-102",
                 344_862_509, "52808999861908f626f3c1f4e79d11fa"),
        _file(f"{_VGG}/flowers/102/imagelabels.mat", "flowers-102",
              502, "e0620be6f572b9609742df49c70aed4d"),
        _file(f"{_VGG}/flowers/102/setid.mat", "flowers-102",
              14_989, "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    "pets": (
        _archive(f"{_VGG}/pets/data/images.tar.gz", "oxford-iiit-pet",
                 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
        _archive(f"{_VGG}/pets/data/annotations.tar.gz", "oxford-iiit-pet",
                 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"),
    ),
    "eurosat": (
        _archive(f"{_EUROSAT}/EuroSAT.zip", "eurosat",
                 94_280_567, "c8fa014336c82ac7804f0398fcb19387"),
    ),
    "sun397": (
        _archive("http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz", "",
                 39_077_296_924, "8ca2778205c41d23104230ba66911c7a"),
    ),
    "imagenette": (
        _archive("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz", "",
                 341_553_947, "3df6f0d01a2c9592104656642f5e78a3"),
    ),
}  # fmt: skip
"""By key of `tcpa_core.data.base.PUBLISHED`."""
