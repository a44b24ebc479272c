"""Where studies and their MLflow records lie: folders and addresses, made whole in one place.

An address is recorded as it was meant where it was given: a relative one would lead every process
to another file. A folder's own database has no recorded address, so that the folder can be moved.
"""

import os
import re
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tcpa_core.errors import ConfigError, StudyError

_SERVICES = ("databricks", "databricks-uc", "uc")
"""Tracking addresses that look like paths and are none."""
STORAGE_SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "hdfs", "file")
"""Kinds of storage in which a study may lie."""
STORAGE_QUERY = tuple(
    "endpoint_override scheme region allow_bucket_creation tls_ca_file_path "
    "retry_limit_seconds blob_storage_authority dfs_storage_authority blob_storage_scheme "
    "dfs_storage_scheme enable_tls replication user buffer_size default_block_size".split()
)
"""What may stand behind the "?" of such an address, as pyarrow takes it; none of it is a secret."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def local_folder(text: str | Path) -> Path:
    """A folder of this machine's file systems; `file:///...` names one, too.

    Raises:
        StudyError: It is an address of something else.
    """
    scheme = _SCHEME.match(str(text))  # a Path has "s3:/" for "s3://"
    if scheme is None or os.path.isdir(text):
        return Path(text)
    if scheme[1].lower() == "file":
        return Path(unquote(urlsplit(str(text)).path))
    raise StudyError(
        f"--root: {str(text)!r} is an address, not a folder of this machine; give the address with "
        f"--storage, or mount the {scheme[1]} storage and give the folder in which it appears."
    )


def storage_address(text: str) -> str:
    """A storage address (`--storage`) as it is recorded: checked, and without secrets.

    Raises:
        ConfigError: It is of no known kind, names no folder, or has a secret in it.
    """
    scheme, mark, rest = text.partition("://")
    if not mark or scheme not in STORAGE_SCHEMES:
        shown = f"{scheme}://" if mark else repr(text)
        raise ConfigError(
            f"--storage: {shown} is no kind of storage that is known here; it is "
            f"{', '.join(f'{one}://' for one in STORAGE_SCHEMES)}. A folder that all hosts share "
            "is given with --root."
        )
    rest, _, query = rest.partition("?")
    user, at, place = rest.rpartition("@")
    # Azure has an account there, HDFS a user, Google "anonymous"; a password stands behind ":".
    if at and (":" in user or scheme == "s3"):
        raise ConfigError(
            f"--storage: the address {scheme}://***@{place} has a user or a password in it; take "
            "them from the environment or the user's configuration of every host (for S3 "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws): the address is recorded."
        )
    for pair in filter(None, query.split("&")):
        key = pair.partition("=")[0]
        if key not in STORAGE_QUERY:
            raise ConfigError(
                f"--storage: {key!r} behind the '?' is not known here, or may be a secret; "
                f"possible: {', '.join(STORAGE_QUERY)}. Secrets are taken from the environment."
            )
    rest = rest.rstrip("/")
    if not rest.strip("/") or (scheme == "file" and not rest.startswith("/")):
        raise ConfigError(
            f"--storage: {text!r} names no folder; give one as 's3://bucket/studies' or "
            "'file:///mnt/all/studies'."
        )
    return f"{scheme}://{rest}{'?' if query else ''}{query}"


def below(address: str, name: str) -> str:
    """The address of a folder below a storage address."""
    where, mark, query = address.partition("?")
    return f"{where}/{name}{mark}{query}"


def database_of(root: Path) -> Path:
    """The tracking database of a studies folder."""
    return root / "mlflow.db"


def existing_database(root: Path) -> Path:
    """The same.

    Raises:
        StudyError: No study has made it yet.
    """
    database = database_of(root)
    if not database.is_file():
        raise StudyError(f"no MLflow database {database}; run a study with this --root first.")
    return database


def default_uri(root: Path) -> str:
    """Its address."""
    return sqlite_uri(database_of(root.resolve()))


def sqlite_uri(path: Path) -> str:
    """The address of a database file, whatever characters its path holds.

    Raises:
        StudyError: The installed SQLAlchemy has no address for it.
    """
    from sqlalchemy.engine import URL, make_url

    # MLflow makes the folder that stands in "sqlite:///"; an escaped one would be made beside ours
    escaped = URL.create("sqlite+pysqlite", database=str(path)).render_as_string()
    for uri in (f"sqlite:///{path}", escaped):
        if make_url(uri).database == str(path):
            return uri
    raise StudyError(
        f"{path} cannot be written as an address of MLflow's database ('?' and '%' need "
        "SQLAlchemy 2.1 or later); choose a folder without them."
    )


def artifacts_of(database: Path) -> Path:
    """Where the runs of a database on this machine keep their files, so that both move together."""
    return database.with_name("mlartifacts")


def sqlite_file(uri: str) -> Path | None:
    """The database file that an address names, relative as it is; None: it names none."""
    if not _is_sqlite(uri):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database or ""
    return None if name in ("", ":memory:") or name.startswith("file:") else Path(name)


def resolved_uri(uri: str) -> str:
    """A tracking address that means the same from every folder.

    Raises:
        ConfigError: It names a database in memory, which no second process can read.
    """
    if _is_sqlite(uri):
        path = sqlite_file(uri)
        if path is None:
            raise ConfigError(
                f"--tracking-uri: {uri!r} names no file; give 'sqlite:///FILE', in which a path "
                "from the root of the file system begins with a fourth '/'."
            )
        query = uri.partition("?")[2]
        return sqlite_uri(path.absolute()) + (f"?{query}" if query else "")
    if uri.startswith("file:") and not uri.startswith("file:/"):
        return Path(unquote(uri.removeprefix("file:"))).absolute().as_uri()
    if uri and ":" not in uri and uri not in _SERVICES:
        return Path(uri).absolute().as_uri()
    return uri


def recorded_uri(uri: str, root: Path) -> str:
    """What a study records: "" for the own database of its folder.

    An earlier version recorded that one's address, too: a file of its name that is gone was
    moved together with the study.
    """
    path = sqlite_file(uri)
    if path is None or "?" in uri:
        return uri
    # Compared by name: where the folder was before is not recorded anywhere.
    was_moved = path.name == database_of(root).name and not path.exists()
    return "" if was_moved or path.resolve() == database_of(root.resolve()) else uri


def _is_sqlite(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] == "sqlite"


def has_tables(database: Path) -> bool:
    """Whether MLflow has made its tables in a database; nothing is written.

    Raises:
        StudyError: The file is not a database, or cannot be made or read.
    """
    import sqlite3  # every help page loads this module

    parent = next(p for p in database.absolute().parents if p.exists())
    if not database.exists():
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StudyError(f"{parent} cannot be written")
        return False
    try:
        # Never made where there is none; but not read-only: what a killed process left half
        # written has to be rolled back by who comes next.
        address = f"{database.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'experiments'")
            return found.fetchone() is not None
    except sqlite3.Error as err:
        raise StudyError(str(err)) from err
