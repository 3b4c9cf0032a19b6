"""A bucket for each test, a cable to it, and uploaders that end with the test."""

from __future__ import annotations

import os

import pytest

from pellucid.recording.upload import Uploader
from tests.recording.upload.s3_server import ADMIN, URL, S3Server
from tests.wire.cable import Cable


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Try again sooner than a user would want to."""
    monkeypatch.setattr("pellucid.recording.upload._PAUSE_S", 0.1)
    monkeypatch.setattr("pellucid.recording.upload_queue._PAUSE_S", 0.1)


@pytest.fixture(scope="module")
def server():
    made = S3Server()
    yield made
    made.close()


@pytest.fixture
def store(server, monkeypatch):
    """Return the server with an empty bucket, to which the environment leads."""
    server.reset()
    server.client().create_bucket(Bucket="lab")
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key, value in {**ADMIN, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": server.endpoint}.items():
        monkeypatch.setenv(key, value)
    return server


@pytest.fixture
def cable(store, monkeypatch):
    """Return a cable to the server that can be pulled."""
    with Cable(store.endpoint.replace("http", "tcp")) as cable:
        monkeypatch.setenv("AWS_ENDPOINT_URL", cable.endpoint.replace("tcp", "http"))
        yield cable


@pytest.fixture
def uploading(tmp_path):
    """Return what makes uploaders of a folder, which end with the test; and the lines that they told."""
    made, told = [], []

    def make(**keys):
        made.append(Uploader(tmp_path, URL, tell=told.append, **keys))
        return made[-1]

    make.told = told
    yield make
    for uploader in made:
        uploader.close()
