"""Uploading an exported folder to the hub: only when asked, privately unless told otherwise."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import (
    InputError,
    LsdataError,
    MissingError,
    OutputError,
    StoppedError,
    one_line,
)
from latentscore_data.core.base.names import leads_out
from latentscore_data.core.base.secrets import key_named, read_dotenv
from latentscore_data.core.export.folder import RECORD_FILE, read_record

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

TOKEN_VARIABLE = "HF_TOKEN"
STORAGE_STATUSES = (402, 507)
TRANSIENT_STATUSES = (408, 409, 412, 423, 425, 429)
"""Among them two that say that another commit came in between."""


def check_push(repo: str) -> None:
    """What can be known before any work: the name's form and the token. Raises :class:`InputError`, :class:`MissingError`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo, re.ASCII):
        raise InputError(f"{repo!r} is not a repository", "write --push OWNER/NAME")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(
            f"{repo!r} is not a name that the hub accepts ({one_line(error)})", "choose another name"
        ) from None
    read_dotenv()
    key_named(TOKEN_VARIABLE)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise MissingError("HF_HUB_OFFLINE is set, so nothing can be pushed", "unset it for this command")


def push_folder(folder: Path, repo: str, *, public: bool) -> str:
    """Upload what an export wrote, and nothing else that lies in its folder; returns the address of the repository.

    Files of the push before that are no longer part of the export are deleted there, in the same commit; files that no
    push of ours brought are left alone. A new repository is private unless ``public``; one that exists and is public is
    refused without it. What has arrived is not sent again, so that an interrupted push goes on when it is repeated.
    Raises :class:`MissingError` when a licence or notice is missing or the hub refuses the token, :class:`InputError` for
    an export that the hub does not take, :class:`OutputError` when the account's storage is full, and
    :class:`StoppedError` when the network or the hub gave up, and only then: that is worth another try.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    record = read_record(folder)
    refuse_links_out(folder)
    names = recorded_files(folder, record)
    refuse_incomplete(record.get("missing_notices", []))
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=key_named(TOKEN_VARIABLE).get_secret_value())
    kind, stale = record["repo_type"], set[str]()
    try:
        try:
            known = api.repo_info(repo, repo_type=kind)
            if not known.private and not public:
                raise InputError(f"{repo} is public", "add --public to publish there, or push to another repository")
            there = {sibling.rfilename for sibling in getattr(known, "siblings", None) or []}
            stale = (there & _brought(api, repo, kind, there)) - set(names)
        except RepositoryNotFoundError:
            api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        message = f"lsdata {record.get('lsdata_version', '')}: export {record['kind']}"
        # One commit, and its files by name: whoever loads the repository finds the old export or the new one.
        api.create_commit(
            repo,
            [
                *(CommitOperationDelete(name, is_folder=False) for name in sorted(stale)),
                *(CommitOperationAdd(name, folder / name) for name in names),
            ],
            repo_type=kind,
            commit_message=message,
        )
    except LsdataError:
        raise
    except HfHubHTTPError as error:
        raise _refused(repo, error) from None
    except json.JSONDecodeError as error:  # a page of a proxy or of a hub that is down
        raise _stopped(repo, one_line(error)) from None
    except ValueError as error:  # what the client says of a card or of files that the hub does not take
        raise _not_taken(repo, one_line(error)) from None
    except (httpx.TransportError, OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        # The last three are the client's, about an answer of another form than the hub's.
        raise _stopped(repo, one_line(error)) from None
    prefix = "datasets/" if kind == "dataset" else ""
    return f"{api.endpoint}/{prefix}{repo}"


def recorded_files(folder: Path, record: JsonObject) -> list[str]:
    """The files that the export wrote, by their names in the folder. Raises :class:`InputError` when one is not there."""
    names = [*sorted(record.get("files", {})), RECORD_FILE]
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if missing := [name for name in names if name not in here]:
        raise InputError(f"{folder / missing[0]} is missing from the export", "export again with --overwrite")
    return names


def _brought(api: HfApi, repo: str, kind: str, there: set[str]) -> set[str]:
    """The files that the last push brought, by the record that it left; none where there is no record of ours."""
    if RECORD_FILE not in there:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        api.hf_hub_download(repo, RECORD_FILE, repo_type=kind, local_dir=folder)
        try:
            record = read_record(Path(folder))
        except OutputError:
            return set()
    # The file is a stranger's until it looks like ours.
    return set(record["files"]) if "lsdata_version" in record and isinstance(record.get("files"), dict) else set()


def _refused(repo: str, error: HfHubHTTPError) -> LsdataError:
    """Which of the hub's refusals another try can change, and what changes the others."""
    status = error.response.status_code if error.response is not None else 0
    reason = f"{status}: {one_line(error.server_message or error)}"
    if status in (401, 403, 404):
        return MissingError(f"the hub refuses {repo} ({reason})", f"check that {TOKEN_VARIABLE} may write there")
    if status in STORAGE_STATUSES:
        return OutputError(
            f"the hub has no room for {repo} ({reason})",
            "free storage of that account or raise its limit, or push to another owner",
        )
    if 400 <= status < 500 and status not in TRANSIENT_STATUSES:
        return _not_taken(repo, reason)
    return _stopped(repo, reason)


def _not_taken(repo: str, reason: str) -> InputError:
    return InputError(
        f"the hub does not take this export as {repo} ({reason})",
        "correct what it names and export again with --overwrite",
    )


def _stopped(repo: str, reason: str) -> StoppedError:
    return StoppedError(
        f"pushing to {repo} stopped ({reason})",
        "run the same command again; files that were uploaded are not sent again",
    )


def refuse_links_out(folder: Path) -> None:
    """Raise :class:`InputError` for a link that leads out of the folder: what it points at would be published."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and leads_out(path, folder):
            raise InputError(f"{path} is a link that leads out of the export", "delete it, or export again")


def refuse_incomplete(missing: list[str]) -> None:
    """Raise :class:`MissingError` when a licence or a notice that must travel along is missing."""
    if missing:
        raise MissingError(
            f"this cannot be pushed: {'; '.join(missing)}",
            "name licences with export.source_licenses = ['DATASET=LICENCE'] or in the texts' metadata, "
            "a base model's with --terms FILE, and export again with --overwrite",
        )


def can_push(folder: Path) -> bool:
    """True for a folder that an export wrote."""
    return (folder / RECORD_FILE).is_file()
