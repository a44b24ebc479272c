"""A weights file and the descriptions beside it, under the hash of what they hold.

Where the file that `backbone.weights` names is absent, its bundle stands for it: in the cache
folder, copied from a machine that has the file.
"""

import hashlib
from functools import partial
from pathlib import Path

from tcpa_core.data.base import Fetch, Progress, cache_root, fetch_file, told
from tcpa_core.errors import WeightsError
from tcpa_core.model.bundle import WeightsBundle
from tcpa_core.model.load_backbone import weights_path
from tcpa_core.model.preprocessing import DESCRIBED_IN, has_own_description
from tcpa_core.settings import BackboneConfig

FOLDER = "weights"
OTHER = "other.bin"
"""An empty file that stands for other weights of the folder: with several, descriptions are
nobody's."""


def bundle_of(cfg: BackboneConfig) -> tuple[WeightsBundle, dict[str, Path]]:
    """The bundle of the file that a backbone has its weights from, and where its files are.

    Raises:
        WeightsError: There is no such file.
    """
    weights = weights_path(cfg)
    named = [weights.parent / name for name in DESCRIBED_IN]
    found = {file.name: file for file in [*named, weights] if file.is_file()}
    digests = {name: _digest(file) for name, file in found.items()}
    if not has_own_description(weights):
        digests[OTHER] = hashlib.sha256().hexdigest()
    folder = hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:32]
    bundle = WeightsBundle(
        f"{FOLDER}/{folder}/{weights.name}",
        {f"{FOLDER}/{folder}/{name}": digest for name, digest in digests.items()},
    )
    return bundle, {f"{FOLDER}/{folder}/{name}": file for name, file in found.items()}


def open_bundle(
    bundle: WeightsBundle,
    cache_dir: Path | None = None,
    *,
    fetch: Fetch,
    progress: Progress | None = None,
) -> Path:
    """The weights file in this machine's cache, fetched if it is not there or damaged.

    Args:
        cache_dir: None: $TCPA_CACHE or ~/.cache/tcpa.
        fetch: Gives what this cache lacks.
        progress: Called with (stage, bytes there, 0) as a file comes.

    Raises:
        DataError: The folder cannot be written, or its disk has no room.
        WeightsError: What came is damaged.
    """
    cache = cache_root(cache_dir)
    for name, digest in bundle.digests.items():
        file = cache / name
        is_whole = partial(_is_whole, file, digest)
        bytes_of = partial(iter, ()) if file.name == OTHER else partial(told, fetch, name, progress)
        fetch_file(file, is_whole, bytes_of)
        if not is_whole():
            raise WeightsError(f"{file} came damaged from another machine; it is asked for again.")
    return cache / bundle.path


def _is_whole(file: Path, digest: str) -> bool:
    return file.is_file() and _digest(file) == digest


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
