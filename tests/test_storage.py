"""A full disk or an unusable path corrupts nothing, is named, and is never taken for a run's failure."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fakes
from command import selgen
from selgen import record, storage
from sweeps import a_sweep, comparable

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


# -- a sweep whose disk is full ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("full")


@pytest.fixture
def config(model_dir, place) -> Path:
    """Its first run, the longest, meets no full disk; the second does."""
    curves = [
        {"method": "task_only", "epochs": [1, 2, 3]},
        {"method": {"name": "fake_full_disk", "mark": str(place / "mark")}},
    ]
    path = place / "sweep.yaml"
    path.write_text(yaml.safe_dump(a_sweep(model_dir, curves=curves, seeds=[1])))
    return path


@pytest.fixture
def undisturbed(config, place) -> Path:
    out = place / "undisturbed"
    if not out.exists():
        code, said = selgen("sweep", "-c", config, "--out", out, "--workers", 1)
        assert code == 0, said
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["record.json", "metrics.jsonl", "samples.val.jsonl"])
def test_a_run_that_met_a_full_disk_leaves_no_record_and_is_redone(config, undisturbed, place, tmp_path, name):
    out = tmp_path / "out"
    (place / "mark").write_text(name)
    code, said = selgen("sweep", "-c", config, "--out", out, "--workers", 1, "--retry", 3)
    assert not (place / "mark").exists(), "the fault was not injected"
    [met] = [r.run_id for r in record.read_all(undisturbed) if r.method == "fake_full_disk"]
    assert code == 1
    assert f"{out / met} cannot be written: the disk is full" in said and "Make room" in said
    kept = {path: path.read_bytes() for path in out.glob(f"*/{record.RECORD}")}
    assert [record.read(path.parent).method for path in kept] == ["task_only"]
    assert not list(out.rglob(".*.tmp"))
    code, said = selgen("sweep", "-c", config, "--out", out, "--workers", 1)
    assert code == 0, said
    assert {path: path.read_bytes() for path in kept} == kept
    assert comparable(out) == comparable(undisturbed)


SMALL_DISK = """
set -e
mount -t tmpfs -o size=200k tmpfs "$DISK"
code=0
"$PYTHON" -m selgen sweep -c "$CONFIG" --out "$DISK/out" --workers 1 2> "$SAID" || code=$?
ls "$DISK"/out/*/record.json > "$RECORDS" 2> /dev/null || true
mount -o remount,size=64m "$DISK"
"$PYTHON" -m selgen sweep -c "$CONFIG" --out "$DISK/out" --workers 1 >&2
cp -r "$DISK/out" "$COPY"
exit $code
"""


@pytest.mark.slow
def test_a_sweep_on_a_disk_that_is_really_full_goes_on_when_there_is_room(config, undisturbed, tmp_path):
    (tmp_path / "disk").mkdir()
    names = {"DISK": "disk", "SAID": "said", "RECORDS": "records", "COPY": "copy"}
    paths = {name: str(tmp_path / value) for name, value in names.items()}
    path = os.pathsep.join([str(tmp_path / "site"), str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | paths | {"PYTHON": sys.executable, "CONFIG": str(config), "PYTHONPATH": path}
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", paths["DISK"]]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here (no user namespaces)")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", SMALL_DISK], env=environment, capture_output=True, text=True)
    said = re.sub(r"\s+", " ", Path(paths["SAID"]).read_text())
    assert done.returncode == 1, done.stderr
    assert re.search(r"cannot be written: the disk is full \(0\.000 GB are free\)\. Make room", said), said
    assert len(Path(paths["RECORDS"]).read_text().split()) < len(record.read_all(undisturbed))
    assert comparable(Path(paths["COPY"])) == comparable(undisturbed)


def test_a_full_disk_is_told_before_the_first_run_too(config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", os.fsync)  # put back at the end
    fakes.fill_disk("sweep.yaml")
    code, said = selgen("sweep", "-c", config, "--out", tmp_path / "out")
    assert code == 1 and f"{tmp_path / 'out'} cannot be written: the disk is full" in said
    assert list((tmp_path / "out").iterdir()) == []


# -- its parts ---------------------------------------------------------------------------------------------------------


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "/runs/a cannot be written: the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/runs/a/x"), "/runs/a/x cannot be written: the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (caused(ValueError("cannot save"), OSError(errno.ENOSPC, "full")), "the disk is full"),
        (OSError(errno.ESTALE, "Stale", "/runs/a/b"), "/runs/a/b should be readable and writable, found: Stale"),
        (PermissionError(errno.EACCES, "denied", "/runs/a/b"), "/runs/a/b should be readable and writable"),
        (PermissionError(errno.EACCES, "denied", "/data/b.jsonl"), None),
        (FileNotFoundError(errno.ENOENT, "nothing", "/runs/a/b"), None),
        (ValueError("loss is not finite"), None),
    ],
)
def test_disks_are_told_apart_from_runs_that_fail(error, expected):
    found = storage.trouble(error, Path("/runs/a"))
    assert found is None if expected is None else found is not None and expected in found


def test_what_fails_on_a_disk_with_nearly_nothing_free_is_laid_to_the_disk(tmp_path, monkeypatch):
    assert storage.full(tmp_path) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 100))
    assert "the disk is full" in (storage.full(tmp_path / "not" / "there") or "")


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    record.write_atomic(tmp_path / "record.json", "old")
    monkeypatch.setattr(os, "fsync", os.fsync)
    fakes.fill_disk("record.json")
    with pytest.raises(OSError, match="No space left"):
        record.write_atomic(tmp_path / "record.json", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"record.json": "old"}


def test_where_directories_cannot_be_locked_a_file_beside_them_is(tmp_path, monkeypatch):
    """As on NFS, which locks only what is open for writing. The directory may be emptied while it is held."""
    flock = fcntl.flock

    def of_nfs(handle: int, operation: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    run = tmp_path / "run"
    run.mkdir()
    with record.locked(run):
        assert list(run.iterdir()) == []
        with pytest.raises(record.Busy, match="being written by another selgen process"), record.locked(run):
            pass
    with record.locked(run):
        pass
