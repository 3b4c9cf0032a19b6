"""A bucket: where it is, what it holds, and a file put into it so that what arrived is known to be what was sent.

Three things are compared. The store is told the SHA-256 of the bytes and refuses others. What it answers, the entity
tag, is held against the MD5 of what was read here; of a file in parts it is the MD5 of the parts' MD5s and their count.
A store whose tags are something else (objects encrypted with a key of their own) is found out by reading back: once
for each run, and each file of which the local copy is to be removed.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pellucid.errors import ConfigError, SinkError, require
from pellucid.recording.upload_fault import Fault, fault_of
from pellucid.recording.upload_sums import Parts, Sums, part_bytes

__all__ = ["Bucket", "Stored", "Unreachable"]

_ANSWER_S = 10.0
_URL = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9])(?:/(.*))?", re.DOTALL)
_KEYS = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


class Unreachable(SinkError):
    """The store does not answer now; it may later."""


class Stored(NamedTuple):
    """What a bucket says of a file: its bytes, and its entity tag."""

    size: int
    etag: str


class Bucket:
    """What lies below ``s3://bucket/prefix``; credentials and endpoint come from the AWS_* environment variables.

    Raises
    ------
    ConfigError
        Where the URL, the endpoint or the credentials cannot be right.
    MissingExtra
    """

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        prefix = (found[2] or "").removesuffix("/") if found else ""
        if found is None or (prefix and not all(map(_is_name, prefix.split("/")))):
            raise ConfigError(f"{url!r} is no place to upload to. Give s3://BUCKET/PREFIX, such as s3://lab/2031-05-07")
        self.url = f"s3://{found[1]}/{prefix}".rstrip("/")
        self._name, self._prefix = found[1], prefix
        endpoint = _endpoint()
        _look_for_keys(url)
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._where = urlsplit(endpoint).netloc if endpoint else f"s3.{region}.amazonaws.com"
        self._api: Any = require("obstore", "s3", f"{url}")
        stores: Any = require("obstore.store", "s3", f"{url}")
        config = {"region": region}
        if endpoint:
            config["endpoint"] = endpoint
        if "AWS_CHECKSUM_ALGORITHM" not in os.environ:
            config["checksum_algorithm"] = "SHA256"
        # A request has as long as a slow line needs for a part; whether the line still lives is asked separately.
        plain = {"allow_http": endpoint.startswith("http:"), "connect_timeout": "5s", "pool_idle_timeout": "15s"}
        few = {
            "max_retries": 3,
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
        }
        given = {"prefix": prefix or None, "config": config}
        self._store = stores.S3Store(self._name, **given, client_options={**plain, "timeout": "900s"}, retry_config=few)
        self._asked = stores.S3Store(
            self._name,
            **given,
            client_options={**plain, "timeout": f"{_ANSWER_S:.0f}s"},
            retry_config={"max_retries": 1},
        )
        self._md5_tags = True
        self._room = asyncio.Semaphore(2)  # each file in parts takes the memory of several

    # ---------------------------------------------------------------- at the start

    def reach(self) -> None:
        """Raise what stands in the way of an upload, as far as can be known before one.

        Raises
        ------
        SinkError
            There is no such bucket, or it does not let you in.
        Unreachable
            Nothing answers.
        """
        try:
            next(iter(self._api.list(self._asked, chunk_size=1)), None)
        except BaseException as error:
            fault = fault_of(error, self._name, self._where)
            raise (SinkError if fault.kind == "refused" else Unreachable)(f"{self.url}: {fault}") from None

    # ---------------------------------------------------------------- what is there

    async def list(self) -> dict[str, Stored]:
        """Return what lies there, by name relative to the prefix; raises Fault."""
        rows = await self._call(self._api.list(self._store).collect_async())
        return {row["path"]: Stored(row["size"], _bare(row["e_tag"])) for row in rows}

    async def answers(self) -> bool:
        """Say whether the store can be reached at all: a refusal is an answer as well."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._call(self._api.head_async(self._asked, ".answers"))
        except TimeoutError:
            return False
        except Fault as fault:
            return fault.kind != "network"
        return True

    # ---------------------------------------------------------------- a file

    async def put(self, name: str, path: Path, *, prove: bool = False) -> Stored:
        """Put a file there, in place of what had its name; what arrived is compared with what was read.

        Parameters
        ----------
        name
            Relative to the prefix, with ``/``.
        path
        prove
            Leave no doubt: read back where nothing else tells.

        Raises
        ------
        Fault
        OSError
            The file cannot be read here.
        """
        part = part_bytes(path.stat().st_size)
        if part:
            async with self._room:
                answer, sums = await self._put_parts(name, path, part)
        else:
            data = path.read_bytes()
            sums = Sums(0)
            sums.add(data)
            answer = await self._call(self._api.put_async(self._store, name, data, use_multipart=False))
        etag = _bare(answer["e_tag"])
        if etag != sums.etag:
            await self._look_closer(name, sums, prove=prove)
        return Stored(sums.size, etag)

    async def _put_parts(self, name: str, path: Path, part: int) -> tuple[Any, Sums]:
        with Parts(path, part) as parts:
            put = self._api.put_async(
                self._store, name, iter(parts), use_multipart=True, chunk_size=part, max_concurrency=2
            )
            try:
                return await self._call(put), parts.sums
            except Fault:
                if parts.error is not None:
                    raise parts.error from None
                raise

    async def _look_closer(self, name: str, sums: Sums, *, prove: bool) -> None:
        if not self._md5_tags and not prove:
            there = await self._call(self._api.head_async(self._store, name))
            if there["size"] != sums.size:
                raise Fault("file", f"{name}: {sums.size} bytes were sent and {there['size']} arrived")
            return
        again = Sums(sums.part)
        answer = await self._call(self._api.get_async(self._store, name))
        stream = aiter(answer.stream(min_chunk_size=1 << 20))
        while (data := await self._call(anext(stream, None))) is not None:
            again.add(data)
        if (again.size, again.etag) != (sums.size, sums.etag):
            raise Fault("file", f"{name} arrived altered")
        self._md5_tags = False

    async def _call(self, made: Awaitable[Any]) -> Any:
        try:
            return await made
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise fault_of(error, self._name, self._where) from None


def _is_name(part: str) -> bool:
    return part not in {"", ".", ".."} and part.isprintable()


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _endpoint(given: Mapping[str, str] = os.environ) -> str:
    """Return where the store is, empty for Amazon's; one that is no URL would bring the library down."""
    for key in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        if value := given.get(key, "").strip():
            try:
                told = urlsplit(value)
                right = told.scheme in {"http", "https"} and bool(told.hostname) and (told.port or 1) > 0
            except ValueError:
                right = False
            if not right or re.search(r"\s", value):
                raise ConfigError(f'{key}="{value}" is no URL. Give http://HOST:PORT or https://HOST')
            return value
    return ""


def _look_for_keys(url: str, given: Mapping[str, str] = os.environ) -> None:
    """Raise where there are no credentials: the library would look for a computer in Amazon's halls."""
    if given.get("AWS_SKIP_SIGNATURE", "").lower() in {"true", "1"} or any(key in given for key in _KEYS):
        return
    missing = [key for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not given.get(key)]
    if missing:
        raise ConfigError(f"{url}: no credentials. Set the environment variable {' and '.join(missing)}")
