"""A server of this machine that speaks S3, with one bucket."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyarrow.fs import FileSystem

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example-of-a-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a user has in the environment."""


def query(host: str, port: int) -> str:
    """How the server is reached, as an address of a storage says it."""
    return f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[str]:
    """A server until the end; the address of a folder in its bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ENVIRONMENT.items():
                patch.setenv(name, value)
            how = query(*server.get_host_and_port())
            maker, _ = FileSystem.from_uri(f"s3://{BUCKET}/{how}&allow_bucket_creation=true")
            maker.create_dir(BUCKET)
            yield f"s3://{BUCKET}/studies{how}"
    finally:
        server.stop()
