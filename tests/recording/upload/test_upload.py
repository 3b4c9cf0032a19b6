"""Uploads to a real S3 server: what is there is what was recorded, whatever happens to the line in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from obstore.store import S3Store

from pellucid.config import Config
from pellucid.errors import ConfigError, PellucidError, RunError, SinkError
from pellucid.live import make_session
from pellucid.recording.upload import Uploader
from pellucid.recording.upload_state import NAME, UploadState, is_chunk, is_wanted, walk
from pellucid.recording.upload_store import Bucket, Unreachable
from pellucid.recording.upload_sums import PART_BYTES, Sums, part_bytes
from pellucid.upload_command import upload_folder
from tests.recording.upload.s3_server import URL, fill, here, there, until


def record(folder: Path, frames: int = 30) -> Path:
    session = make_session(
        Config.parse(
            f"""
            [source]
            kind = "simulated"
            shape = [64, 80]
            fps = 1000
            on_full = "wait"
            frames = {frames}
            [[sinks]]
            kind = "recorder"
            path = "{folder.as_posix()}"
            shard_frames = 4
            [session]
            threads = 1
            """
        ),
        tell=lambda text: None,
    )
    try:
        session.open()
        session.run()
    finally:
        session.close()
    return folder


# -------------------------------------------------------------------- what is there


def test_a_recording_is_read_from_the_bucket_with_every_pixel(store, tmp_path, capsys):
    folder = record(tmp_path / "run")
    assert upload_folder(folder, URL, lambda: False)
    assert there(store) == here(folder)
    assert store.unchecked == []
    assert "upload.jsonl" not in there(store)

    s3 = S3Store("lab", prefix="day 1/run/raw.ome.zarr", endpoint=store.endpoint, client_options={"allow_http": True})
    far = zarr.open_group(zarr.storage.ObjectStore(s3, read_only=True), mode="r")
    near = zarr.open_group(folder / "raw.ome.zarr", mode="r")
    assert near["0"].shape[0] == 30
    assert len(np.unique(near["0"][:])) > 100
    np.testing.assert_array_equal(far["0"][:], near["0"][:])
    assert dict(far.attrs) == dict(near.attrs)

    puts = store.puts.total()
    assert upload_folder(folder, URL, lambda: False)
    assert store.puts.total() == puts
    assert "files are there already" in capsys.readouterr().out


def test_what_is_offered_arrives_with_metadata_that_changes(store, tmp_path, uploading):
    paths = fill(tmp_path)
    uploader = uploading()
    uploader.offer(paths)
    until(lambda: uploader.waiting == (0, 0))
    (tmp_path / "raw.ome.zarr/0/zarr.json").write_text('{"node_type": "array", "shape": [2]}')
    uploader.offer(paths)
    report = uploader.finish(20)
    assert (report.files, report.missing) == (41, ())
    assert there(store) == here(tmp_path)
    assert store.puts["/lab/day 1/run/raw.ome.zarr/0/zarr.json"] == 2
    assert store.puts["/lab/day 1/run/raw.ome.zarr/0/c/0/0/0/0"] == 1
    assert uploading.told == []


def test_a_file_that_grows_all_the_time_is_put_seldom_and_at_the_end(store, tmp_path, uploading):
    uploader = uploading()
    path = tmp_path / "frames.jsonl"
    for i in range(40):
        with path.open("ab") as file:
            file.write(b'{"seq": %d}\n' % i)
        uploader.offer([path])
        time.sleep(0.01)
    assert uploader.finish(20).missing == ()
    assert there(store) == here(tmp_path)
    assert store.puts["/lab/day 1/run/frames.jsonl"] <= 3


def test_files_over_a_part_go_in_parts(store, tmp_path, uploading):
    path = tmp_path / "raw.ome.tiff"
    path.write_bytes(np.random.default_rng(0).bytes(2 * PART_BYTES + 12345))
    even = tmp_path / "even.ome.tiff"
    even.write_bytes(bytes(2 * PART_BYTES))
    uploader = uploading()
    uploader.offer([path, even])
    assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)
    assert store.puts["/lab/day 1/run/raw.ome.tiff"] == 3
    assert {sent.etag[-2:] for sent in UploadState(tmp_path, URL).sent.values()} == {"-3", "-2"}


@pytest.mark.parametrize("cut", [1000, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1])
def test_sums_do_not_depend_on_the_pieces(cut):
    data = bytes(PART_BYTES + 5000)
    for part in (0, PART_BYTES):
        whole, pieces = Sums(part), Sums(part)
        whole.add(data)
        pieces.add(data[:cut])
        pieces.add(data[cut:])
        assert (whole.size, whole.etag) == (pieces.size, pieces.etag)


def test_a_file_has_no_more_parts_than_a_store_takes():
    sizes = [PART_BYTES + 1, 70 << 30, PART_BYTES * 9000, PART_BYTES * 9000 + 1, 300 << 30, 5 << 40]
    parts = [part_bytes(size) for size in sizes]
    assert parts == sorted(parts)
    assert all(-(-size // part) <= 9000 for size, part in zip(sizes, parts, strict=True))
    assert part_bytes(PART_BYTES) == 0
    assert parts[-1] < 5 << 30


def test_only_what_belongs_there_is_sent(tmp_path):
    names = ["raw.ome.zarr/zarr.json", "raw.ome.zarr/0/.zarray", "frames.jsonl", "report.json", "a/b.tif"]
    own = ["journal", ".lock", ".reserve", NAME, "raw.ome.zarr/0/c/0/0.partial", "zarr.json.new", ".process/1"]
    for name in [*names, *own]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(walk(tmp_path)) == sorted(names)
    assert not any(map(is_wanted, own))


# -------------------------------------------------------------------- ends and beginnings

UPLOAD = """
import sys
from pathlib import Path
from pellucid.errors import PellucidError
from pellucid.upload_command import upload_folder
try:
    sys.exit(0 if upload_folder(Path(sys.argv[1]), sys.argv[2], lambda: False) else 1)
except PellucidError as error:
    sys.exit(f"pellucid: {error}")
"""


def test_a_second_upload_ends_what_a_kill_has_cut_off(cable, store, tmp_path):
    fill(tmp_path, files=150)
    first = subprocess.Popen([sys.executable, "-c", UPLOAD, str(tmp_path), URL])
    try:
        until(lambda: store.puts.total() > 20)
    finally:
        first.kill()
        first.wait()
    before = store.puts.copy()
    assert 20 < len(before) < 151
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"path": "raw.ome.zarr/0/c/149')  # as far as a kill lets it come
    second = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(tmp_path), URL], capture_output=True, text=True, check=False
    )
    assert (second.returncode, second.stderr) == (0, "")
    assert "of 151 files are there already" in second.stdout
    assert there(store) == here(tmp_path)
    assert store.puts.total() <= 151 + 4  # those that were under way
    assert UploadState(tmp_path, URL).sent.keys() == here(tmp_path).keys()


def test_the_bucket_has_the_last_word(store, tmp_path, capsys):
    fill(tmp_path, files=6)
    assert upload_folder(tmp_path, URL, lambda: False)
    client = store.client()
    client.delete_object(Bucket="lab", Key="day 1/run/raw.ome.zarr/0/c/1/0/0/0")
    client.put_object(Bucket="lab", Key="day 1/run/raw.ome.zarr/0/c/2/0/0/0", Body=bytes(200_000))
    assert upload_folder(tmp_path, URL, lambda: False)
    assert there(store) == here(tmp_path)
    store.puts.clear()
    (tmp_path / NAME).unlink()  # nothing is noted: what is there is told by its checksum
    os.utime(tmp_path / "raw.ome.zarr/0/c/3/0/0/0")
    assert upload_folder(tmp_path, URL, lambda: False)
    assert upload_folder(tmp_path, URL + " again", lambda: False)
    assert upload_folder(tmp_path, URL, lambda: False)
    assert store.puts.total() == 7
    assert "7 of 7 files are there already" in capsys.readouterr().out


def test_pixels_are_freed_after_they_arrived_and_nothing_else_is(store, tmp_path, uploading, capsys):
    paths = fill(tmp_path, files=10)
    (tmp_path / "frames.jsonl").write_text("{}\n")
    before = here(tmp_path)
    store.damage = 2
    uploader = uploading(free_local=True)
    uploader.offer([*paths[:5], paths[-1], tmp_path / "frames.jsonl"])
    assert uploader.finish(30).missing == ()
    uploader.close()
    assert [path.exists() for path in paths] == [False] * 5 + [True] * 6
    assert (tmp_path / "frames.jsonl").exists()
    assert upload_folder(tmp_path, URL, lambda: False)
    assert upload_folder(tmp_path, URL, lambda: False, free_local=True)
    assert list(here(tmp_path)) == ["raw.ome.zarr/0/zarr.json", "frames.jsonl"]
    assert there(store) == before
    assert "1.0 MB of pixels were removed here" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
    assert {row["path"] for row in rows if row.get("freed")} == {p.relative_to(tmp_path).as_posix() for p in paths[:10]}
    store.client().delete_object(Bucket="lab", Key="day 1/run/raw.ome.zarr/0/c/7/0/0/0")
    assert not upload_folder(tmp_path, URL, lambda: False)
    assert "raw.ome.zarr/0/c/7/0/0/0: not there" in capsys.readouterr().out


def test_what_is_a_chunk(tmp_path):
    fill(tmp_path, files=1)
    assert is_chunk(tmp_path, "raw.ome.zarr/0/c/0/0/0/0")
    others = ["raw.ome.zarr/0/zarr.json", "raw.ome.zarr/c/0", "c/0", "raw.ome.zarr/0/c", "raw.ome.zarr/0/c/0/x", "7"]
    assert not any(is_chunk(tmp_path, name) for name in others)


def test_a_file_that_cannot_be_put_is_listed(store, tmp_path, capsys):
    folder = tmp_path / "run"
    fill(folder, files=3)
    store.damage = 10**6
    assert not upload_folder(folder, URL, lambda: False)
    out = capsys.readouterr().out
    assert "4 files are not there:" in out
    assert "arrived altered" in out


def test_it_is_stopped_and_goes_on(cable, store, tmp_path, capsys):
    fill(tmp_path, files=100)
    assert not upload_folder(tmp_path, URL, lambda: store.puts.total() > 10)
    assert "Type the same command again" in capsys.readouterr().out
    assert upload_folder(tmp_path, URL, lambda: False)
    assert there(store) == here(tmp_path)


# -------------------------------------------------------------------- mistakes


def one_line(kind, what) -> str:
    with pytest.raises(kind) as caught:
        what()
    text = str(caught.value)
    assert isinstance(caught.value, PellucidError)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize(
    "url",
    [
        *("", "lab/run", "s3:/lab", "s3://", "s3://x", "s3:///run", "http://lab/run", "s3://la b/x"),
        *("s3://lab//x", "s3://lab/a/../b", "s3://lab/a\nb"),
    ],
)
def test_a_bad_url_is_one_line(store, url):
    assert "Give s3://BUCKET/PREFIX" in one_line(ConfigError, lambda: Bucket(url))


@pytest.mark.parametrize("url", ["s3://lab", "s3://lab/", "s3://lab/run/", "s3://lab/ü #%?+&/x"])
def test_a_good_url_is_taken(store, tmp_path, url):
    name = "å b#%2F?x+&.json"
    (tmp_path / name).write_text("x")
    assert upload_folder(tmp_path, url, lambda: False)
    keys = [row["Key"] for row in store.client().list_objects_v2(Bucket="lab")["Contents"]]
    assert keys == [f"{url.removeprefix('s3://lab').strip('/')}/{name}".lstrip("/")]


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "127.0.0.1", "http://", "ftp://x", "http://a b", "http://x:99999"]
)
def test_a_bad_endpoint_is_one_line(store, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert "AWS_ENDPOINT_URL" in one_line(ConfigError, lambda: Bucket(URL))


def test_no_credentials_are_one_line(store, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "Set the environment variable AWS_SECRET_ACCESS_KEY" in one_line(ConfigError, lambda: Bucket(URL))


def test_a_missing_bucket_is_one_line(store, tmp_path):
    text = one_line(SinkError, lambda: upload_folder(tmp_path, "s3://lob/run", lambda: False))
    assert "there is no bucket lob at 127.0.0.1" in text


def test_wrong_credentials_are_one_line(store, tmp_path, monkeypatch):
    fill(tmp_path, files=2)
    user = store.user("s3:ListBucket")
    with store.strict():
        text = one_line(SinkError, lambda: upload_folder(tmp_path, "s3://lab/run", lambda: False))
        assert "does not know the key AWS_ACCESS_KEY_ID" in text
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", user["AWS_ACCESS_KEY_ID"])
        text = one_line(SinkError, lambda: upload_folder(tmp_path, "s3://lab/run", lambda: False))
        assert "does not accept AWS_SECRET_ACCESS_KEY" in text
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", user["AWS_SECRET_ACCESS_KEY"])
        text = one_line(RunError, lambda: upload_folder(tmp_path, "s3://lab/run", lambda: False))
        assert "denies access to the bucket lab, or to write there (AccessDenied)" in text


def test_no_network_at_the_start_is_one_line(cable, tmp_path):
    cable.pull()
    assert "no connection to 127.0.0.1" in one_line(Unreachable, lambda: upload_folder(tmp_path, URL, lambda: False))


def test_folders_that_are_none_and_recordings_that_are_not_ended_are_one_line(store, tmp_path):
    assert "is no folder" in one_line(SinkError, lambda: upload_folder(tmp_path / "x", URL, lambda: False))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/journal").write_bytes(b"")
    assert "pellucid recover" in one_line(SinkError, lambda: upload_folder(tmp_path, URL, lambda: False))
    with pytest.raises(ValueError, match="other"):
        Uploader.offer(_made := Uploader(tmp_path, URL, tell=print), [tmp_path.parent / "other"])
    _made.close()
