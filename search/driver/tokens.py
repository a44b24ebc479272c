"""Which token Ray sends to a cluster; never what it is."""

import os
from pathlib import Path

MODE = "RAY_AUTH_MODE"
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TOKEN_MODE = "token"


def default_path() -> Path:
    """Where 'ray get-auth-token --generate' and the first local cluster of a user write one."""
    return Path.home() / ".ray" / "auth_token"


def token_place() -> str:
    """Where Ray finds a token, in the order in which it looks; "": nowhere."""
    if os.environ.get(TOKEN):
        return f"${TOKEN}"
    if path := os.environ.get(TOKEN_PATH):
        return f"{path} (${TOKEN_PATH})"
    return str(default_path()) if has_token() else ""


def has_token() -> bool:
    """Whether Ray finds a token in this process."""
    return bool(os.environ.get(TOKEN)) or _has_text(_file())


def sends_token(finds_cluster: bool) -> bool:
    """Whether Ray sends a token where this process joins a cluster.

    Args:
        finds_cluster: It is given no address. Only then does Ray send one that is at hand unasked.
    """
    mode = os.environ.get(MODE)
    if mode is None:
        return finds_cluster and bool(token_place())
    return mode.lower() == TOKEN_MODE


def remedy_of_token() -> str:
    """What to type where a cluster refuses this process for its token."""
    export = f"export {MODE}={TOKEN_MODE}"
    if has_token() and os.environ.get(MODE, "").lower() != TOKEN_MODE:
        return f"Type here: {export}."
    return (
        "Copy ~/.ray/auth_token of the head's machine to ~/.ray/auth_token here ('chmod 600' it), "
        f"then type here: {export}."
    )


def token_here(finds_cluster: bool = False) -> str:
    """Which token this process sends, in a clause; as of `sends_token`."""
    place, mode = token_place(), os.environ.get(MODE, "")
    if not sends_token(finds_cluster):
        why = f"{MODE} is {mode!r}" if mode else f"{MODE} is not set"
        at_hand = f", though there is one in {place}" if place else ", and there is none"
        return f"none is sent, as {why}{at_hand}"
    return f"that of {place} is sent" if has_token() else f"{MODE} is 'token', but there is none"


def doubt_of_token() -> str:
    """What is wrong with the file of the token that this process sends; "": nothing."""
    if os.environ.get(MODE, "").lower() != TOKEN_MODE or os.environ.get(TOKEN):
        return ""
    file = _file()
    if not _has_text(file):
        return f"{file} cannot be read or is empty. {remedy_of_token()}"
    if file.stat().st_mode & 0o077:  # as Ray itself writes it
        return f"others can read it: 'chmod 600 {file}'."
    return ""


def _file() -> Path:
    return Path(os.environ.get(TOKEN_PATH) or default_path())


def _has_text(file: Path) -> bool:
    try:
        return bool(file.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return False
