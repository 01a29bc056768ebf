"""Which paths are refused before a run, and how a report gets into its file."""

from __future__ import annotations

import errno
import importlib.util
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.report import files
from pytest_tcpresilience.report.document import Document, read
from pytest_tcpresilience.report.paths import choose_paths
from pytest_tcpresilience.report.writing import check_all, check_writable, keep_elsewhere, write
from tests.reports import hostile_document, record

DOCUMENT = Document((record(client="redis", fault="stall"),))
# pathlib's own, for a file system that lets some names pass and others not.
UNPRIVILEGED = os.geteuid() != 0


# --- the check ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.html", "a.md", "a.json", "a.HTML", "a b|c.json"])
def test_a_path_that_will_do(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("of yesterday")
    before = path.stat()
    check_writable(path)
    assert path.read_text() == "of yesterday"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a", "it has no suffix"),
        ("a.pdf", "its suffix is '.pdf'"),
        ("a.html.gz", "its suffix is '.gz'"),
        ("missing/a.html", "there is no directory"),
        ("file/a.html", "there is no directory"),
        ("directory.html", "it is a directory"),
        ("pipe.json", "it is no ordinary file"),
        ("x" * 300 + ".json", "File name too long"),
        ("nul\0.json", "null"),
        ("loop.json", "oop"),
    ],
)
def test_a_path_that_will_not_do(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "directory.html").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop.json").symlink_to("loop.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UsageError) as refused:
        check_writable(tmp_path / name, "--resilience-report")
    assert why in str(refused.value)
    assert "--resilience-report" in refused.value.summary


@pytest.mark.skipif(not UNPRIVILEGED, reason="root may write anywhere")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_read_only_will_not_do(tmp_path: Path, what: str) -> None:
    path = tmp_path / "inner" / "a.json"
    path.parent.mkdir()
    if what == "file":
        path.touch(mode=0o444)
    else:
        path.parent.chmod(0o555)
    with pytest.raises(UsageError, match="cannot be written"):
        check_writable(path)


def test_a_directory_that_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is read-only, or full: permissions do not say so, not even to root."""
    monkeypatch.setattr(files, "open", _refusing(errno.EROFS), raising=False)
    with pytest.raises(UsageError, match="Read-only file system"):
        check_writable(tmp_path / "a.json")


def _refusing(code: int) -> Any:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def test_one_file_is_not_given_twice(tmp_path: Path) -> None:
    (tmp_path / "link.md").symlink_to(tmp_path / "a.md")
    check_all([tmp_path / "a.md", tmp_path / "a.html"])
    for other in ("a.md", "../" + tmp_path.name + "/a.md", "link.md"):
        with pytest.raises(UsageError, match="is given twice"):
            check_all([tmp_path / "a.md", tmp_path / other])


def test_templates_need_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    check_writable(tmp_path / "a.json")
    for name in ("a.html", "a.md"):
        with pytest.raises(UsageError, match="needs Jinja2") as refused:
            check_writable(tmp_path / name)
        assert 'pip install "pytest-tcpresilience[report]"' in refused.value.advice


# --- the writing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begin"), [("a.html", "<!doctype html>\n<html"), ("a.md", "# What"), ("a.json", "{\n")]
)
def test_a_suffix_is_a_form(tmp_path: Path, name: str, begin: str) -> None:
    write(DOCUMENT, tmp_path / name)
    assert (tmp_path / name).read_text(encoding="utf-8").lstrip().startswith(begin)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("document", [DOCUMENT, hostile_document()], ids=["plain", "hostile"])
def test_json_can_be_read_again(tmp_path: Path, document: Document) -> None:
    write(document, tmp_path / "a.json")
    assert read(tmp_path / "a.json") == document


@pytest.mark.parametrize("name", ["a.html", "a.md"])
def test_any_text_can_be_written(tmp_path: Path, name: str) -> None:
    write(hostile_document(), tmp_path / name)
    assert "\ufffd lone" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write(DOCUMENT, tmp_path / "a.json")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_old_file_keeps_its_mode_and_a_link_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch()
    path.chmod(0o640)
    (tmp_path / "link.json").symlink_to(path)
    write(DOCUMENT, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert read(path) == DOCUMENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("of yesterday")
    monkeypatch.setattr(os, "fsync", _refusing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        write(DOCUMENT, path)
    assert path.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = keep_elsewhere(DOCUMENT)
    assert kept.parent == tmp_path
    assert read(kept) == DOCUMENT


# --- the option ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ini", "variable", "flags", "expected"),
    [
        ([], "", None, []),
        (["a.md"], "", None, ["/ini/a.md"]),
        (["a.md"], f"b.md{os.pathsep}/abs/c.md{os.pathsep}", None, ["/here/b.md", "/abs/c.md"]),
        (["a.md"], "b.md", ["c.md", "d e.md"], ["/here/c.md", "/here/d e.md"]),
        ([], "", [], []),
    ],
)
def test_the_nearest_option_counts(
    ini: list[str], variable: str, flags: list[str] | None, expected: list[str]
) -> None:
    environment = {"RESILIENCE_REPORT": variable} if variable else {}
    _, paths = choose_paths(
        ini, environment, flags, started_in=Path("/here"), ini_directory=Path("/ini")
    )
    assert [str(path) for path in paths] == expected
