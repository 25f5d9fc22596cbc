"""A folder that appears whole or not at all."""

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
"""What an exported folder says about itself; also the mark by which we know a folder of ours."""

NAME_ANOTHER = "name another folder for it"


@contextlib.contextmanager
def new_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A draft beside ``target`` that takes its name when the block ends well, and is deleted when it does not.

    A reader sees the old folder or the new one. Raises :class:`OutputError` when the target exists and ``overwrite`` is
    false, or when it exists and was not written by an export: somebody else's files are never replaced.
    """
    check_target(target, overwrite)
    # The target of a link is replaced, not the link.
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
    """Hold a draft, as long as this process lives at most; False while another process holds it."""
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
    """Remove what killed commands began beside ``target``; the draft of one that is at work stays."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*{DRAFT_ENDING}"):
        if is_draft(draft) and draft.is_dir():
            with _claimed(draft) as free:
                if free:
                    shutil.rmtree(draft, ignore_errors=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse, before any work, a target that may not be written."""
    if not target.exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        if not (target / RECORD_FILE).is_file():
            raise OutputError(
                f"{target} exists and is not an export of lsdata", "move it away, or choose another --out"
            )
        if not overwrite:
            raise OutputError(f"{target} exists", "add --overwrite to replace it, or choose another --out")
    if _stand_in(target):
        # The folder would be replaced under the shell that is in it, which is nowhere then.
        raise OutputError(f"{target} is the current folder", "leave this folder, or choose a subfolder with --out")


def _stand_in(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(os.path.realpath(folder))
    except FileNotFoundError:  # the current folder is gone already
        return False


def write_record(folder: Path, kind: str, facts: Mapping[str, Any]) -> None:
    """``export.json``: what this is, what made it, and the SHA-256 of every file beside it."""
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
    """The record of an exported folder. Raises :class:`OutputError` for a folder without one."""
    try:
        return read_object(folder / RECORD_FILE, "")
    except InputError:
        raise OutputError(f"{folder} is not an export of lsdata", "write it with: lsdata export") from None
