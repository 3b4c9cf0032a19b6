"""Uploads over a line that breaks, to a store that is busy, and with noise in between."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pellucid.recording.upload_sums import PART_BYTES
from pellucid.upload_command import upload_folder
from tests.recording.upload.s3_server import URL, fill, here, there, until


def test_a_cable_that_is_pulled_costs_only_time(cable, store, tmp_path, uploading):
    paths = fill(tmp_path, files=120)
    uploader = uploading()
    uploader.offer(paths)
    for _ in range(2):
        carried = cable.carried
        until(lambda carried=carried: cable.carried > carried + 3_000_000)
        cable.pull()
        until(lambda: uploader.trouble)
        uploader.offer(paths[:5])  # goes on being offered, and nobody waits
        assert uploader.waiting[0] > 0
        cable.plug()
        until(lambda: not uploader.trouble)
    assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)
    assert store.unchecked == []
    lost = [line for line in uploading.told if "no connection to 127.0.0.1" in line]
    back = [line for line in uploading.told if "the connection is back" in line]
    assert (len(lost), len(back), len(uploading.told)) == (2, 2, 4)
    assert all("files" in line and "MB) wait" in line for line in uploading.told)


def test_a_file_that_is_cut_half_way_is_put_again(store, tmp_path, uploading):
    paths = [tmp_path / "raw.ome.tiff", tmp_path / "small.tiff"]
    for path, parts in zip(paths, (2, 1), strict=True):
        path.write_bytes(np.random.default_rng(parts).bytes(parts * PART_BYTES))
        uploader = uploading()
        store.cut = 9  # more than the library itself tries
        uploader.offer([path])
        until(lambda: not store.cut)
        assert uploader.trouble
        assert path.name not in there(store)
        assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)


def test_an_end_without_a_connection_tells_what_is_missing(cable, store, tmp_path, uploading):
    paths = fill(tmp_path, files=10)
    uploader = uploading()
    uploader.offer(paths[:4])
    assert uploader.finish(20).missing == ()
    cable.pull()
    uploader.offer(paths[4:])
    report = uploader.finish(1.0)
    assert report.files == 4
    assert sorted(name for name, _ in report.missing) == sorted(p.relative_to(tmp_path).as_posix() for p in paths[4:])
    assert all("no connection" in why for _, why in report.missing)
    uploader.close()
    cable.plug()
    assert upload_folder(tmp_path, URL, lambda: False)
    assert there(store) == here(tmp_path)
    assert set(store.puts.values()) == {1}


def test_a_connection_that_stands_still_is_given_up(cable, store, tmp_path, uploading, monkeypatch):
    monkeypatch.setattr("pellucid.recording.upload._STALL_S", 0.5)
    monkeypatch.setattr("pellucid.recording.upload_store._ANSWER_S", 0.5)
    paths = fill(tmp_path, files=4)
    uploader = uploading()
    cable.clog()
    uploader.offer(paths)
    until(lambda: uploader.trouble)
    assert "stands still" in uploader.trouble
    cable.pull()
    cable.plug()
    assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)


def test_it_ends_at_once_while_a_connection_stands_still(cable, tmp_path, uploading, capfd):
    paths = fill(tmp_path, files=4)
    uploader = uploading()
    cable.clog()
    uploader.offer(paths)
    until(lambda: cable.carried > 100_000)
    thread = threading.Thread(target=uploader.close)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(uploader.finish(1).missing) == 5
    uploader.offer(paths)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("status", [500, 503])
def test_a_store_that_is_busy_is_tried_again(store, tmp_path, uploading, status):
    paths = fill(tmp_path, files=10)
    store.answer = status
    uploader = uploading()
    uploader.offer(paths)
    until(lambda: uploader.trouble)
    answered = store.answered
    until(lambda: store.answered > answered)
    store.answer = 0
    assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)
    assert [str(status) in line for line in uploading.told] == [True, False]


def test_what_arrives_altered_is_put_again(store, tmp_path, uploading):
    paths = fill(tmp_path, files=10)
    store.damage = 3
    uploader = uploading()
    uploader.offer(paths)
    assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)
    assert store.puts.total() == 14
    assert sum("arrived altered" in line for line in uploading.told) == 3


def test_noise_on_the_line_is_noticed_by_the_store(store, tmp_path, uploading):
    paths = fill(tmp_path, files=10)
    store.noise = 3
    uploader = uploading()
    uploader.offer(paths)
    assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)
    assert sum("BadDigest" in line for line in uploading.told) == 3


def test_tags_that_are_no_checksums_are_found_out(store, tmp_path, uploading):
    paths = fill(tmp_path, files=10)
    store.odd_tags = True
    store.damage = 1
    uploader = uploading(at_once=1)
    uploader.offer(paths[:5])
    assert uploader.finish(30).files == 5
    store.noise = 2
    uploader.offer(paths[5:])
    assert uploader.finish(30).missing == ()
    assert there(store) == here(tmp_path)
    assert ["altered" in line for line in uploading.told] == [True, False, False]


def test_where_tags_are_no_checksums_pixels_are_freed_after_they_were_read_back(store, tmp_path, uploading):
    paths = fill(tmp_path, files=6)
    before = here(tmp_path)
    store.odd_tags = True
    uploader = uploading(free_local=True, at_once=1)
    uploader.offer(paths[:3])
    assert uploader.finish(30).missing == ()
    store.damage = 2
    uploader.offer(paths[3:])
    assert uploader.finish(30).missing == ()
    assert list(here(tmp_path)) == ["raw.ome.zarr/0/zarr.json"]
    assert there(store) == before
