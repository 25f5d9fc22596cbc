"""Atomic creation of a folder, and the record of its files."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentscore.json_search import JsonObject
from latentscore_data import __version__
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.jsonl import DRAFT_ENDING, draft_of, is_draft, read_object, replace_json, writing
from latentscore_data.core.base.manifest import file_fact, git_commit

RECORD_FILE = "export.json"
"""The record of an exported folder. A folder without it was not written by an export."""

NAME_ANOTHER = "name another folder for it"


@contextlib.contextmanager
def new_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a draft folder beside ``target``; rename it to ``target`` at the end, or delete it after an exception.

    So a reader sees the old folder or the new one. Raises :class:`OutputError` for a target that may not be written
    (:func:`check_target`), and if the disk is full.
    """
    check_target(target, overwrite)
    # Replace the target of a link, not the link.
    target = Path(os.path.realpath(target))
    _sweep_drafts(target)
    draft = draft_of(target)
    old = draft.with_suffix(".old")
    try:
        with writing(target, NAME_ANOTHER):
            draft.mkdir(parents=True)
        with _claimed(draft):
            yield draft
        with writing(target, NAME_ANOTHER):
            if target.exists():
                target.rename(old)
            try:
                draft.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _claimed(draft: Path) -> Iterator[bool]:
    """Lock a draft until the end of the block or of this process; yield False if another process holds the lock."""
    handle = os.open(draft, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _sweep_drafts(target: Path) -> None:
    """Remove the drafts of killed commands beside ``target``; drafts of running commands stay."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*{DRAFT_ENDING}"):
        if is_draft(draft) and draft.is_dir():
            with _claimed(draft) as free:
                if free:
                    shutil.rmtree(draft, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Raise :class:`OutputError` for a target that may not be written: it exists and ``overwrite`` is false, it was not
    written by an export, or it is the current folder."""
    if not target.exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        if not (target / RECORD_FILE).is_file():
            raise OutputError(
                f"{target} exists and is not an export of lsdata", "move it away, or choose another --out"
            )
        if not overwrite:
            raise OutputError(f"{target} exists", "add --overwrite to replace it, or choose another --out")
    with contextlib.suppress(FileNotFoundError):  # the current folder may not exist any more
        if Path.cwd().is_relative_to(os.path.realpath(target)):
            # Replacing it would leave the user's shell in a deleted folder.
            raise OutputError(f"{target} is the current folder", "leave this folder, or choose a subfolder with --out")


def write_record(folder: Path, kind: str, facts: Mapping[str, Any]) -> None:
    """Write ``export.json``: the kind of export, the version that made it, ``facts``, and the SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    replace_json(
        folder / RECORD_FILE,
        {
            "kind": kind,
            "lsdata_version": __version__,
            "git_commit": git_commit(),
            **facts,
            "files": {path.relative_to(folder).as_posix(): asdict(file_fact(path)) for path in files},
        },
    )


def read_record(folder: Path) -> JsonObject:
    """Return the record of an exported folder. Raises :class:`OutputError` without a valid one."""
    try:
        return read_object(folder / RECORD_FILE, "")
    except InputError:
        raise OutputError(f"{folder} is not an export of lsdata", "write it with: lsdata export") from None
