"""A real S3 server on this computer, moto's, that can also be busy, slow to answer, or damage what it is sent."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import numpy as np
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from pellucid.recording.upload_state import walk

URL = "s3://lab/day 1/run"
ADMIN = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "secret"}
BAD_DIGEST = b"<Error><Code>BadDigest</Code><Message>not what was told</Message></Error>"


class S3Server:
    """Serves; the SHA-256 that comes with every file is held against its bytes, as Amazon's server does.

    Attributes
    ----------
    answer : int
        Of every request, such as 503; 0: what moto answers.
    damage : int
        How many of the next files are stored with a byte changed.
    cut : int
        Of how many of the next files half is read, before the connection ends.
    noise : int
        How many of the next files have a byte changed on their way.
    odd_tags : bool
        Entity tags are not the MD5 of the bytes, as of a bucket with its own encryption.
    puts : Counter
        Files that were put, by key.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.port}"
        self.answer = self.cut = self.damage = self.noise = 0
        self.odd_tags = False
        self.puts: Counter[str] = Counter()
        self.unchecked: list[str] = []
        self.answered = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def _serve(self, environ: dict[str, Any], start: Any) -> Any:
        if self.answer:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            self.answered += 1
            start(f"{self.answer} Slow Down", [("Content-Length", "0")])
            return [b""]
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1:
            data = self._take(environ)
            if data is None:
                start("400 Bad Request", [("Content-Length", str(len(BAD_DIGEST)))])
                return [BAD_DIGEST]
            environ["wsgi.input"] = io.BytesIO(data)
        if not self.odd_tags:
            return self._app(environ, start)

        told: list[Any] = []
        body = b"".join(self._app(environ, lambda *status: told.extend(status)))
        body = re.sub(rb"<ETag>.*?</ETag>", b'<ETag>"not-an-md5"</ETag>', body)
        changed = {"etag": '"not-an-md5"'}
        if environ["REQUEST_METHOD"] != "HEAD":
            changed["content-length"] = str(len(body))
        start(told[0], [(key, changed.get(key.lower(), value)) for key, value in told[1]])
        return [body]

    def _take(self, environ: dict[str, Any]) -> bytes | None:
        length = int(environ["CONTENT_LENGTH"])
        if self.cut:
            self.cut -= 1
            environ["wsgi.input"].read(length // 2)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        data = environ["wsgi.input"].read(length)
        told = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256", "")
        with self._lock:
            self.puts[environ["PATH_INFO"]] += 1
            if self.noise:
                self.noise -= 1
                data = data[:-1] + bytes([data[-1] ^ 1])
            if not told:
                self.unchecked.append(environ["PATH_INFO"])
            elif base64.b64encode(hashlib.sha256(data).digest()).decode() != told:
                return None
            if self.damage and data:
                self.damage -= 1
                data = bytes([data[0] ^ 1]) + data[1:]
        return data

    def client(self, service: str = "s3", **keys: str) -> Any:
        """Return boto3's, as an administrator."""
        given = {"aws_access_key_id": "admin", "aws_secret_access_key": "secret", "region_name": "us-east-1", **keys}
        return boto3.client(service, endpoint_url=self.endpoint, **given)

    def user(self, *actions: str) -> dict[str, str]:
        """Make a user who may do so much; return who that is, as environment variables."""
        iam = self.client("iam")
        iam.create_user(UserName="u")
        key = iam.create_access_key(UserName="u")["AccessKey"]
        allowed = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}],
        }
        iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=json.dumps(allowed))
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Look at keys, signatures and policies from here on."""
        self._set_auth(b"0")
        try:
            yield
        finally:
            self._set_auth(b"Infinity")

    def _set_auth(self, after: bytes) -> None:
        url = f"{self.endpoint}/moto-api/reset-auth"
        with urlopen(Request(url, after, {"Content-Type": "text/plain"}, method="POST")) as answer:
            assert answer.status == 200

    def reset(self) -> None:
        """Forget everything."""
        with urlopen(Request(f"{self.endpoint}/moto-api/reset", method="POST")):
            pass
        self.answer = self.cut = self.damage = self.noise = self.answered = 0
        self.odd_tags = False
        self.puts.clear()
        self.unchecked.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def there(store: S3Server, url: str = URL) -> dict[str, bytes]:
    """Return what the bucket has, by name."""
    prefix = url.removeprefix("s3://lab/")
    client = store.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="lab", Prefix=prefix)
    keys = [row["Key"] for page in pages for row in page.get("Contents", [])]
    return {key.removeprefix(prefix + "/"): client.get_object(Bucket="lab", Key=key)["Body"].read() for key in keys}


def here(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in walk(folder)}


def fill(folder: Path, files: int = 40, nbytes: int = 200_000) -> list[Path]:
    """Make files as a recorder would; return their paths."""
    rng = np.random.default_rng(files)
    paths = [folder / f"raw.ome.zarr/0/c/{i}/0/0/0" for i in range(files)]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(rng.bytes(nbytes))
        os.utime(path, (1_700_000_000, 1_700_000_000))
    array = folder / "raw.ome.zarr/0/zarr.json"
    array.write_text('{"node_type": "array"}')
    return [*paths, array]


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
