"""Addresses and messages without their secrets: for whatever is shown, stored or sent on."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable that may hold the tracking address with its secrets."""

_HARMLESS = frozenset(
    "application_name cache charset check_same_thread connect_timeout driver isolation_level mode "
    "options sslmode target_session_attrs timeout uri".split()
)
"""Query keys of a database address whose values are harmless; all others are left out."""
_SECRET_VARIABLE = re.compile(r"PASSW|PGPASS|_PWD$|TOKEN$|SECRET|API_?KEY|ACCESS_KEY", re.I)
_LEAST = 6
"""Shorter values of environment variables are hardly secrets and would garble a message."""
_PATTERNS = (
    (re.compile(r"(\w://)[^/\s@'\"]*@"), r"\1"),
    (re.compile(r"(?i)((?:passw\w*|passphrase|pwd|token|secret|api_?key)\s*[=:]\s*)[^\s&,;'\")]+"),
     r"\1***"),
    (re.compile(r"(?i)(authorization\W+(?:\w+\s+)?)\S+"), r"\1***"),
)  # fmt: skip


def without_secrets(uri: str) -> str:
    """The address without user name, password and every query value that may be a secret."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    if not rest.startswith("/"):  # else a local path, in which "@" means nothing
        rest = rest.rsplit("@", 1)[-1]
    where, _, query = rest.partition("?")
    kept = [pair for pair in _pairs(query) if pair.partition("=")[0].lower() in _HARMLESS]
    return f"{scheme}{mark}{where}{'?' if kept else ''}{'&'.join(kept)}"


def with_secrets(uri: str) -> str:
    """A stored address as the user's environment completes it ($MLFLOW_TRACKING_URI)."""
    known = os.environ.get(TRACKING_VARIABLE, "")
    return known if known and without_secrets(known) == without_secrets(uri) else uri


def hide(text: str, uri: str = "") -> str:
    """A message without secrets: those of an address and of the environment, and what looks so."""
    for address in filter(None, (uri, os.environ.get(TRACKING_VARIABLE, ""))):
        text = text.replace(address, without_secrets(address))
        for secret in _secrets_of(address):
            text = text.replace(secret, "***")
    for name, value in os.environ.items():
        if len(value) >= _LEAST and _SECRET_VARIABLE.search(name):
            text = text.replace(value, "***")
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def move_out_of_arguments(arguments: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """Move the secrets of `--tracking-uri` from a command line into the environment.

    Returns:
        Arguments that may stand in a process list, and the variables to set; none where the
        arguments hold no secret.
    """
    clean, variables = list(arguments), {}
    for i, argument in enumerate(clean):
        option, mark, value = argument.partition("=")
        if option != "--tracking-uri" or (not mark and i + 1 == len(clean)):
            continue
        uri = value if mark else clean[i + 1]
        if without_secrets(uri) == uri:
            continue
        variables[TRACKING_VARIABLE] = uri
        if mark:
            clean[i] = f"{option}={without_secrets(uri)}"
        else:
            clean[i + 1] = without_secrets(uri)
    return clean, variables


def restart_without_secrets() -> None:
    """Replace this process by one whose command line shows no secret, where it shows one.

    Everybody on a machine can read command lines, and Ray stores that of a driver.
    """
    # orig_argv and not argv: options of Python itself stand before the module's name.
    clean, variables = move_out_of_arguments(sys.orig_argv[1:])
    if variables:
        os.execve(sys.executable, [sys.executable, *clean], {**os.environ, **variables})


def _secrets_of(uri: str) -> Iterator[str]:
    """Password (or the user name where there is no password) and query values, longest first."""
    rest = uri.partition("://")[2]
    found = set()
    if "@" in rest and not rest.startswith("/"):
        user, mark, password = rest.rsplit("@", 1)[0].partition(":")
        found.add(password if mark else user)
    for pair in _pairs(rest.partition("?")[2]):
        key, _, value = pair.partition("=")
        if key.lower() not in _HARMLESS:
            found.add(value)
    # A client quotes an address as it stands or decoded, so both spellings are hidden.
    decoded = {unquote(secret) for secret in found}
    yield from sorted(filter(None, found | decoded), key=len, reverse=True)


def _pairs(query: str) -> list[str]:
    return [pair for pair in re.split("[&;]", query.partition("#")[0]) if pair]
