"""Hostile bytes: files as an attacker, a broken disk or an odd editor leaves them.

A corpus is a list of seeds, whole files and known attacks, which are read as they are before they
are changed at random. Everything is drawn from a seeded `random.Random`.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tcpa_core.data._formats import FORMATS

Change = Callable[[bytes, Random], bytes]

TOKENS = (
    b"!!python/object/apply:os.system ['true']", b"!!python/name:os.system ", b"!!binary aGk=",
    b"!!timestamp 2024-02-30", b"2024-13-45", b"2024-02-30T25:61:00Z", b"&a [*a]", b"*a", b"<<: ",
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b'"\\U7fffffff"',
    b'"\\x00"', b"9" * 5000, b"1e999", b"-1e999", b".nan", b".inf", b"NaN", b"-Infinity", b"0x10",
    b"1:30:00", b"[" * 300, b"{a: " * 60, b"]" * 30, b"../../etc/passwd", b"/dev/zero", b"~", b"%",
    b"%TAG ! tag:x,2000:\n--- ", b"%YAML 9.9\n--- ", b"--- ", b"...\n", b"? ", b"- ", b": ", b"\t",
    b"\r", b"\x1b[31m", b"\xe2\x80\xa8", b"|9\n", b">-\n", b"'", b'"', b"\\", b"#", b"null",
    b"true", b"999999999", b"-1", b"0", b"18446744073709551616", b"1000000000000000000",
    b"a" * 3000, b" ",
)  # fmt: skip
"""What tends to find the seams of text readers."""

VALUES: tuple[Any, ...] = (
    None, True, "", [], {}, -1, 0, 2**31, 2**63, 2**64, 10**400, 1e308, float("nan"), float("inf"),
    -0.0, "\ud800", "\x00", "../../etc/passwd", "x" * 3000, [[[]]], {"": {"": 0}}, "completed", "1",
    "__DEEP__", "__LONG__",
)  # fmt: skip
"""What a JSON value is replaced by; the last two stand for deep nesting and 5,000 digits."""


def mutate(data: bytes, rng: Random) -> bytes:
    """Change a file in one to six places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.choice((1, 1, 4, 30, 300)))
        match rng.randrange(7):
            case 0 if changed:
                changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                changed[at:end] = rng.randbytes(end - at)
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = changed[at:end]
            case 4:
                changed[at:at] = rng.choice(TOKENS)
            case 5:
                changed[at:end] = rng.choice(TOKENS)
            case _:
                del changed[at if rng.random() < 0.3 else end :]
    return bytes(changed)


def mutate_words(data: bytes, rng: Random) -> bytes:
    """Change text by whole words and lines, so that most of it still makes sense."""
    if rng.random() < 0.3:
        return mutate(data, rng)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        words = lines[at].split(b" ")
        match rng.randrange(5):
            case 0:
                words[rng.randrange(len(words))] = rng.choice(TOKENS)
            case 1:
                words[rng.randrange(len(words))] = rng.choice(rng.choice(lines).split(b" "))
            case 2:
                words = rng.choice(lines).split(b" ")
            case 3:
                words = [b"", *words]
            case _:
                rng.shuffle(words)
        lines[at] = b" ".join(words)
    return b"\n".join(lines)


def mutate_json(data: bytes, rng: Random) -> bytes:
    """Change values, keys and structure of a JSON text; of other text, bytes as `mutate`."""
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return mutate(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        owner, key = rng.choice(list(_spots(root)) or [(root, 0)])
        match rng.randrange(5):
            case 0 if isinstance(owner, dict):
                owner[rng.choice(("", "kind", "trial", "\ud800", key * 2))] = owner.pop(key)
            case 1 if owner is not root:
                del owner[key]
            case 2:
                other, source = rng.choice(list(_spots(root)))
                owner[key] = json.loads(json.dumps(other[source]))
            case _:
                owner[key] = rng.choice(VALUES)
    text = json.dumps(root[0]).replace('"__DEEP__"', "[" * 3000 + "]" * 3000)
    return text.replace('"__LONG__"', "9" * 5000).encode()


def mutate_events(data: bytes, rng: Random) -> bytes:
    """Change, repeat, drop and move the events of a journal without checksums."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines.insert(to, lines[at])
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines[at], lines[to] = lines[to], lines[at]
            case _:
                lines[at] = mutate_json(lines[at], rng)
        lines = lines or [b"{}"]
    return b"\n".join(lines)


def sealed(data: bytes) -> bytes:
    """A journal of these lines whose checksums are right."""
    lines = [line.removesuffix(b"}") for line in data.split(b"\n")]
    return b"".join(b'%s,"crc":"%08x"}\n' % (line, zlib.crc32(line + b"}")) for line in lines)


def _spots(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON value that can be changed, as its owner and key."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield node, key
        if isinstance(value, dict | list):
            yield from _spots(value)


YAML_ATTACKS: Sequence[bytes] = (
    b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 108)
    ),
    b"&a [*a]",
    b"schema: 1\nkind: search\nspace: &a {b: *a}\n",
    b"[" * 100_000,
    b"{a: " * 5_000,
    b"- " * 5_000 + b"x",
    b"name: s\nseeds: " + b"9" * 100_000,
    b"name: s\naxes: {" + b"optim.lr: {int: [1, 2]}, " * 2_000 + b"}",
    b"name: !!python/object/apply:os.system ['touch hacked']\n",
    b"name: !!python/object/new:os.system ['touch hacked']\n",
    "name: s\nbase: {optim.lr: 1}\n".encode("utf-16"),
    b"\xef\xbb\xbf\xef\xbb\xbfname: s\n",
    b"name: s\x00\n",
    b'name: "\\ud800\\udfff"\n',
    b'name: "\\U00110000"\n',
    b"a" * 200_000 + b": 1\n",
    b"name: s\nbase: {" + b"x" * 100_000 + b": 1}\n",
    b"? " * 2_000,
    b"name: s\nbudget: {trials: 4}\naxes: {train.batch_size: {int: [1, 999999999999999999]}}\n",
    b"name: s\nbudget: {trials: 4}\nsampler: {name: grid}\n"
    b"axes: {train.batch_size: {int: [1, 999999999]}, train.epochs: {int: [1, 999999999]}}\n",
    b"name: a\nablation:\n  design: full_factorial\n  factors:\n"
    + b"".join(
        b"    %s: [%s]\n" % (path, b", ".join(b"%d" % (i + 1) for i in range(2000)))
        for path in (b"train.epochs", b"train.batch_size", b"train.patience")
    ),
    b"key: " + b"'" * 50_000,
    b"#" * 300_000,
    b"\n" * 300_000,
    b"key: |\n" + b" x\n" * 50_000,
)  # fmt: skip
"""Alias bombs, depth, numbers, tags, encodings and sheer length."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_seeds() -> list[bytes]:
    """Small files of every format and mode, and images that promise more than they hold."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    colour = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "<img src=x onerror=alert(1)>"
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    frames = [colour.rotate(90 * i) for i in range(4)]
    files = [encoded(colour, kind) for kind in FORMATS]
    files += [
        encoded(colour.convert("CMYK"), "JPEG"),
        encoded(colour, "JPEG", exif=exif, progressive=True),
        encoded(colour, "MPO", save_all=True, append_images=frames),
        encoded(deep, "PNG"),
        encoded(deep, "TIFF"),
        encoded(colour.convert("P"), "PNG", transparency=3),
        encoded(colour.convert("LAB"), "TIFF"),
        encoded(colour.convert("1"), "TIFF", compression="group4"),
        *(encoded(colour, "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "packbits")),
        encoded(colour, "GIF", save_all=True, append_images=frames),
        encoded(colour, "WEBP", save_all=True, append_images=frames),
        encoded(colour, "PNG", save_all=True, append_images=frames),
        *_lying_sizes(files),
        encoded(colour, "ICO"),
        encoded(colour, "TGA"),
        encoded(colour, "PDF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"P6 60000 60000 255\n",
        b"P5 1 1 99999999999999\n\x00",
        b"P1 " + b"9" * 5000,
        b"",
    ]
    return files + [_vast_png(), _text_bomb()]


def _lying_sizes(files: Sequence[bytes]) -> Iterator[bytes]:
    """AVIF and JPEG 2000 whose headers say other sizes than what they hold."""
    for data in files:
        for mark, skip in ((b"ispe", 8), (b"ihdr", 4)):
            at = data.find(mark) + skip
            for side in (1, 4000, 60_000) if at >= skip else ():
                yield data[:at] + side.to_bytes(4, "big") * 2 + data[at + 8 :]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _vast_png() -> bytes:
    """50,000 x 50,000 grey pixels in a few bytes."""
    head = (50_000).to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(200_000))
    parts = _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _text_bomb() -> bytes:
    """A tiny picture with a comment of 80 MB once unpacked."""
    head = (1).to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"zTXt", b"Comment\0\0" + bomb)
        + _chunk(b"IDAT", zlib.compress(b"\0\0"))
        + _chunk(b"IEND", b"")
    )


def npz(arrays: dict[str, bytes], *, pack: bool = False) -> bytes:
    """A NumPy archive with these members, written as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if pack else 0) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(header: str, content: bytes = b"") -> bytes:
    """A NumPy array with a header of our choice."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def npz_seeds() -> list[bytes]:
    """Archives of arrays: one whole, others that promise terabytes, hold objects or are bombs."""
    ones = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", bytes(16))

    def shape(text: str, kind: str = "<f4") -> bytes:
        return npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({text}), }}", bytes(16))

    return [
        npz({"head/kernel": ones, "cls": ones}),
        npz({"Transformer/encoder_norm/scale": ones, "cls": ones}),
        npz({"a": shape("1099511627776,")}),
        npz({"a": shape("4611686018427387904, 4611686018427387904")}),
        npz({"a": shape("-4,")}),
        npz({"a": shape("4,", "|O")}),
        npz({"a": shape("1,", "<f16")}),
        npz({"a": shape("4,", ">f4")}),
        npz({"a": npy("__import__('os').system('true')")}),
        npz({"a": npy("{" * 100)}),
        npz({"a": shape("16777216,").ljust(1 << 26, b"\0")}, pack=True),
        npz({f"{i}": ones for i in range(300)}),
    ]


def header_attacks() -> list[bytes]:
    """Safetensors files whose header lies about its length, its tensors or itself."""

    def file(header: bytes, length: int | None = None, content: bytes = bytes(16)) -> bytes:
        size = len(header) if length is None else length
        return size.to_bytes(8, "little") + header + content

    def tensor(**fields: Any) -> bytes:
        whole = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **fields}
        return file(json.dumps({"a": whole, "__metadata__": {"tcpa": "{}", "crc": "0"}}).encode())

    return [
        file(b"{}", 2**64 - 1), file(b"{}", 2**63), file(b"{}", 10**9), file(b"", 0), b"\x08",
        file(b'{"a":' * 2_000 + b"}" * 2_000), file(b"[" * 5_000), file(b"{" + b" " * 5_000 + b"}"),
        tensor(), tensor(shape=[2**62, 4]), tensor(shape=[2**64 - 1]), tensor(shape=[0, 2**60]),
        tensor(shape=[]), tensor(data_offsets=[16, 0]), tensor(data_offsets=[0, 2**63]),
        tensor(dtype="BF16", shape=[8]), tensor(dtype="F8_E4M3", shape=[16]), tensor(dtype="X"),
        tensor(dtype="BOOL", shape=[16]), tensor(dtype="I64", shape=[2]),
        file(b'{"__metadata__": {"tcpa": 1}}'), file(b"\xff\xfe{}"),
    ]  # fmt: skip


PATHS: Sequence[str] = (
    "..", ".", "/", "//", "../x", "a/../../b", "/etc/passwd", "~", "~root", "a\nb", "a\x1b[31mb",
    "-rf", "--help", "", " ", "a" * 64, "a" * 65, "a" * 5000, "con", "a:b", "a\\b", "\udcff", "ä",
    "a\u202eb", "<img src=x onerror=alert(1)>", "\\input{/etc/passwd}", "$(true)", "`true`",
    "%2e%2e", "=1+1", "mine", "a;b", "*", "[a]", "a|b", "\u2028", "ａ", "a.", "..." ,
)  # fmt: skip
"""Names that are more than names."""
