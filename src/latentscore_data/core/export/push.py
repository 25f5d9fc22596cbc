"""Upload of an exported folder to the Hugging Face hub, private by default."""

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
from latentscore_data.core.base.jsonl import object_or_empty
from latentscore_data.core.base.names import leads_out
from latentscore_data.core.base.secrets import key_named, read_dotenv
from latentscore_data.core.export.folder import RECORD_FILE, read_record

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

TOKEN_VARIABLE = "HF_TOKEN"
STORAGE_STATUSES = (402, 507)
TRANSIENT_STATUSES = (408, 409, 412, 423, 425, 429)
"""409 and 412 mean that another commit was made at the same time."""


def check_push(repo: str) -> None:
    """Check a push before any work. Raises :class:`InputError` for an invalid name, and :class:`MissingError` without a
    token or in offline mode."""
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
    """Upload the files of an export, and no others, in one commit; return the address of the repository.

    Files of the previous push that are no longer in the export are deleted in the same commit; other files of the
    repository stay. A new repository is private unless ``public``; an existing public one is an error without
    ``public``. A repeated push does not upload finished files again. Raises :class:`MissingError` for a missing licence
    or notice and if the hub refuses the token, :class:`InputError` for an export that the hub does not accept,
    :class:`OutputError` if the account's storage is full, and :class:`StoppedError` for errors of the network or the
    hub that may not recur.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    record = read_record(folder)
    refuse_links_out(folder)
    names = recorded_files(folder, record)
    if missing := record.get("missing_notices", []):
        raise MissingError(
            f"this cannot be pushed: {'; '.join(missing)}",
            "name licences with export.source_licenses = ['DATASET=LICENCE'] or in the texts' metadata, "
            "a base model's with --terms FILE, and export again with --overwrite",
        )
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
        # One commit, so that the repository always holds a complete export.
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
    except json.JSONDecodeError as error:  # an HTML page of a proxy, or of a hub that is down
        raise _stopped(repo, one_line(error)) from None
    except ValueError as error:  # the client's error for a card or for files that the hub does not accept
        raise _not_taken(repo, one_line(error)) from None
    except (httpx.TransportError, OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        # The client raises the last three for a response of unexpected form.
        raise _stopped(repo, one_line(error)) from None
    prefix = "datasets/" if kind == "dataset" else ""
    return f"{api.endpoint}/{prefix}{repo}"


def recorded_files(folder: Path, record: JsonObject) -> list[str]:
    """Return the names of the export's files, relative to the folder. Raises :class:`InputError` for a missing one."""
    names = [*sorted(record.get("files", {})), RECORD_FILE]
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if missing := [name for name in names if name not in here]:
        raise InputError(f"{folder / missing[0]} is missing from the export", "export again with --overwrite")
    return names


def _brought(api: HfApi, repo: str, kind: str, there: set[str]) -> set[str]:
    """Return the files of the previous push, from its record in the repository; empty without a valid record."""
    if RECORD_FILE not in there:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        api.hf_hub_download(repo, RECORD_FILE, repo_type=kind, local_dir=folder)
        record = object_or_empty(Path(folder) / RECORD_FILE)
    # A repository may hold another program's export.json.
    return set(record["files"]) if "lsdata_version" in record and isinstance(record.get("files"), dict) else set()


def _refused(repo: str, error: HfHubHTTPError) -> LsdataError:
    """Return the error for a response of the hub: :class:`StoppedError` only if another try may succeed."""
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
        f"the hub does not accept this export as {repo} ({reason})",
        "correct the reported fault and export again with --overwrite",
    )


def _stopped(repo: str, reason: str) -> StoppedError:
    return StoppedError(
        f"pushing to {repo} stopped ({reason})",
        "run the same command again; files that were uploaded are not sent again",
    )


def refuse_links_out(folder: Path) -> None:
    """Raise :class:`InputError` for a symbolic link to a file outside the folder, which would be published."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and leads_out(path, folder):
            raise InputError(f"{path} is a link that leads out of the export", "delete it, or export again")
