"""What the file system refuses is said with its remedy."""

from __future__ import annotations

import errno
import os

import pytest
from toy_archive import CONFIG, filled, template, values

from sdaxr.archives.creation import create_archive
from sdaxr.archives.reading import open_archive
from sdaxr.schema import ArchiveError


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "No space left on device; free some space and run the same job again"),
        (errno.EACCES, "Permission denied; choose another path, or change the permissions"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_a_full_disk_or_missing_permission_is_said_clearly(tmp_path, monkeypatch, number, message):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    archive = filled(tmp_path / "a.zarr", skip=(3,))
    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage._local._put", refuse)
        with pytest.raises(ArchiveError, match=f"cannot create .*{message}"):
            create_archive(tmp_path / "b.zarr", template(), "member", CONFIG)
        with pytest.raises(ArchiveError, match=f"cannot write .*{message}"):
            archive.write(3, values(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr.partial"]
    assert archive.pending() == [3]
    archive.write(3, values(3))
    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage._local._put", refuse)
        with pytest.raises(ArchiveError, match=f"cannot finish .*{message}"):
            archive.finalise()
    archive.finalise()
    assert open_archive(tmp_path / "a.zarr").total.values.tolist() == [0, 15, 30, 45]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(ArchiveError, match="Permission denied"):
        create_archive(tmp_path / "closed" / "a.zarr", template(), "member", CONFIG)


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="cannot create .*a folder of this path is a file, or a link to nothing"):
        create_archive(tmp_path / "file" / "a.zarr", template(), "member", CONFIG)
