"""Which picture files are read, and what the files are that are met in their place."""

import re
from typing import NamedTuple

from PIL import features

_HAS = {
    # Pillow has AVIF since 11.3, and may be built without either.
    "AVIF": "avif" in features.modules and features.check("avif"),
    "JPEG2000": features.check("jpg_2000"),
}

FORMATS = (
    *("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF"),
    *(name for name, is_built_in in _HAS.items() if is_built_in),
)
"""Told by content, not by suffix: published sets hold GIF and PNG files named .jpg. Of several
pictures (GIF, WebP, TIFF, and MPO, which is a JPEG) the first is read. No decoder of these runs
another program."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".avif", ".jp2", ".j2k", ".j2c", ".jpc"),
    *(".jpf", ".jpx"),
)
"""Of files that are taken for pictures."""

HEAD = 4096
"""Bytes that tell what a file is."""


class Unread(NamedTuple):
    """A kind of file that is not read."""

    name: str
    todo: str
    suffixes: tuple[str, ...] = ()
    head: bytes = rb"(?!)"
    """Expression for how it begins."""


_CONVERT = "convert it to PNG or JPEG"
_SLICES = "export the slices as 8-bit or 16-bit PNG"
_RENDER = "render it to PNG"
_FRAMES = "extract its frames as JPEG or PNG"
_UNPACK = "unpack it, and let data.root be the folder with what it holds"
_AGAIN = "download it again"

UNREAD = (
    Unread("an empty file", _AGAIN, head=rb"\Z"),
    Unread("a git-lfs pointer", "run `git lfs pull` where it came from", head=rb"version https?://"),
    Unread(
        "an HTML page (a failed download)",
        f"{_AGAIN}, with the account or licence that its page asks for",
        (".html", ".htm"),
        rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:!doctype html|html)\b",
    ),
    Unread("SVG", _RENDER, (".svg", ".svgz"), rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml.*?<)?[^<]*?\bsvg\b"),
    Unread("an XML text (a failed download)", _AGAIN, head=rb"(?:\xef\xbb\xbf)?\s*<\?xml"),
    Unread("a zip archive", _UNPACK, (".zip",), rb"PK(?:\x03\x04|\x05\x06)"),
    Unread("NIfTI", _SLICES, (".nii", ".nii.gz"), rb".{344}n[i+]1\0|.{4}n[i+]2\0\r\n"),
    Unread(
        "a packed archive",
        _UNPACK,
        (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
        rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar",
    ),
    Unread("DICOM", _SLICES, (".dcm", ".dicom"), rb".{128}DICM"),
    Unread(
        "a camera's RAW picture",
        "develop it to JPEG, PNG or TIFF",
        (".dng", ".nef", ".cr2", ".cr3", ".crw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".raw"),
        rb"II\*\0.{4}CR|....ftypcrx |IIR[OS]|IIU\0|FUJIFILMCCD-RAW|.{6}HEAPCCDR",
    ),
    Unread(
        "HEIC",
        _CONVERT,
        (".heic", ".heif", ".hif"),
        rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1(?!.{0,64}avif))",
    ),
    Unread("a PDF document", _RENDER, (".pdf",), rb"%PDF-"),
    Unread("EPS or PostScript", _RENDER, (".eps", ".ps", ".ai"), rb"%!PS|\xc5\xd0\xd3\xc6"),
    Unread(
        "a video",
        _FRAMES,
        (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
        rb"....ftyp(?!avi[fs])|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xba\xb3]|FLV\x01|0&\xb2u",
    ),
    Unread("JPEG XL", _CONVERT, (".jxl",), rb"\xff\x0a|\0\0\0\x0cJXL "),
    Unread("a Photoshop document", _CONVERT, (".psd",), rb"8BPS"),
    Unread("OpenEXR or Radiance", _CONVERT, (".exr", ".hdr"), rb"v/1\x01|#\?RA"),
    Unread("FITS", _CONVERT, (".fits", ".fit"), rb"SIMPLE  ="),
    Unread("an icon", _CONVERT, (".ico", ".cur"), rb"\0\0[\x01\x02]\0.{2}[\0-\xff]{2}\0"),
    Unread("Targa", _CONVERT, (".tga",)),
    Unread(
        "a NumPy array", "save the pictures as PNG, or as an .npz with labels (data.name=npz)",
        (".npy",), rb"\x93NUMPY",
    ),
    Unread("HDF5 or MATLAB", "save the pictures as PNG", (".h5", ".hdf5", ".mat"),
           rb"\x89HDF|MATLAB 5"),
    Unread("Parquet", "set data.name=parquet", (".parquet",), rb"PAR1"),
    Unread("zero bytes only (a copy that broke off)", _AGAIN, head=rb"\0{16}"),
)  # fmt: skip
"""By name, suffix or first bytes, the first that fits. A file that Pillow reads is never asked."""


def unread(data: bytes) -> str:
    """What a file is that is not a picture that is read, and what to do, as half a sentence."""
    head = data[:HEAD]
    found = next((kind for kind in UNREAD if re.match(kind.head, head, re.DOTALL)), None)
    if found is not None:
        return f"{len(data):,} bytes that are {found.name}; {found.todo}"
    but = " but text" if data.isascii() else ""
    return f"{len(data):,} bytes that are not an image ({', '.join(FORMATS)}){but}; restore it"


def unread_suffix(name: str) -> str:
    """The same of a file's name; "" where nothing is known."""
    name = name.lower()
    found = next((kind for kind in UNREAD if name.endswith(kind.suffixes)), None)
    return f" It is {found.name} by its name, which is not read: {found.todo}." if found else ""
