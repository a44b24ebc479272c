"""YAML as a reader means it: no surprises of YAML 1.1, every value with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.reader import MAX_BYTES, Document, read_file, read_text
from tcpa_core.errors import ConfigError


def _read(text: str) -> Document:
    return read_text(text, "a.yaml", Path("/somewhere"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("5.0e-4", 5e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("-3", -3),
        ("010", 10),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("on", "on"),
        ("no", "no"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("2024-01-02", "2024-01-02"),
        (".inf", ".inf"),
        ("<<", "<<"),
        ("'5'", "5"),
        ("[a, [1, 2.5]]", ["a", [1, 2.5]]),
    ],
)
def test_scalars(text: str, value: object) -> None:
    read = _read(f"key: {text}\n").data["key"]
    assert read == value
    assert type(read) is type(value)


def test_a_whole_number_too_long_for_int_is_a_decimal() -> None:
    assert _read("k: " + "9" * 400).data["k"] == float("inf")


def test_places_are_lines_of_keys_and_items() -> None:
    document = _read("# comment\na:\n  b: 1\n  c:\n    - x\n    - y\n")
    assert document.place("a", "b") == "a.yaml, line 3"
    assert document.place("a", "c", 1) == "a.yaml, line 6"
    assert document.place("a", "c", 1, "unknown") == "a.yaml, line 6"
    assert Document({}, {}, "a.yaml", Path()).place("a") == "a.yaml"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{}#&*!|>?'\"%@,~ \n\t01.e", max_size=40))
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    try:
        read = _read(text)
    except ConfigError as err:
        assert str(err).startswith("a.yaml")
    else:
        assert read.label == "a.yaml"


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_file(path, "a.yaml", tmp_path).data == {"a": 1, "b": 2}


def test_not_utf8_names_byte_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"a.yaml, line 2: byte 0xe9 is not UTF-8"):
        read_file(path, "a.yaml", tmp_path)


def test_a_large_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="a.yaml is larger than 100000 bytes"):
        read_file(path, "a.yaml", tmp_path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="here cannot be read: Is a directory"):
        read_file(tmp_path, "here", tmp_path)
