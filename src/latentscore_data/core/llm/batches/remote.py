"""The protocols of provider batches: OpenAI's files and batches, with the variants of Azure and Together, and Anthropic's
message batches."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, cast

from latentscore.json_search import JsonObject
from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, StoppedError
from latentscore_data.core.base.jsonl import Line
from latentscore_data.core.base.names import json_bytes
from latentscore_data.core.llm.retry import CallError, classify
from latentscore_data.core.llm.server_errors import Refusal

TAG_NAME = "lsdata_tag"
LISTED_AT_MOST = 2000
"""Maximum number of batches that are searched, from the newest, for one whose submission was interrupted."""
RETRIES = 5
FILE_POLL_SECONDS, FILE_WAIT_SECONDS = 2.0, 600.0
"""Interval and time-out of polling Azure for an uploaded file, in seconds."""


@dataclass(frozen=True)
class Request:
    """One line of a batch: its id and the body that a direct call would send."""

    custom_id: str
    body: JsonObject


@dataclass(frozen=True)
class Progress:
    """The provider's information about a batch. ``status`` is the provider's term; ``ended`` is true if no more answers
    will come."""

    remote_id: str
    status: str
    ended: bool
    total: int = 0
    done: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Result:
    """One result line: the body of an answer, or the error. With ``passed`` the line does not count as failed, because the
    batch was cancelled before it was processed."""

    custom_id: str
    body: JsonObject | None = None
    error: CallError | None = None
    passed: bool = False


class UnknownOutcomeError(StoppedError):
    """A submission without a response: the provider may have the batch."""


class Remote(Closing):
    """A provider's batch API. All calls raise subclasses of :class:`LsdataError`."""

    most_requests: int
    most_bytes: int
    uploads: bool
    """True where the questions are uploaded as a file first."""
    certain: bool
    """True if a batch has our tag or file, so that a batch that :meth:`find` returns is the one searched for."""
    _client: Any
    _errors: tuple[type[Exception], ...]
    """The exceptions of a failed call."""

    def upload(self, tag: str, requests: Sequence[Request]) -> str:
        """Upload the questions; returns the id of the file."""
        with self._calling("the questions could not be uploaded"):
            return self._upload(tag, requests)

    def submit(self, tag: str, file_id: str, requests: Sequence[Request]) -> Progress:
        """Start the batch, which costs money. Raises :class:`UnknownOutcomeError` if it may have started."""
        with self._calling("the batch could not be submitted", submitting=True):
            return self._submit(tag, file_id, requests)

    def find(self, tag: str, file_id: str, since: float, count: int, known: set[str]) -> list[Progress]:
        """Return batches with that tag or file, or possible ones: created after ``since`` (Unix time in seconds), not
        ``known``, with ``count`` requests."""
        with self._calling("the batches could not be listed"):
            return self._find(tag, file_id, since, count, known)

    def progress(self, remote_id: str) -> Progress | None:
        """Return the progress; None if the provider no longer has the batch."""
        with suppress(_GoneError), self._calling(f"batch {remote_id} could not be looked up"):
            return self._look_up(remote_id)
        return None

    def results(self, remote_id: str) -> Iterator[bytes]:
        """Yield the lines of all results, in any order."""
        with self._calling(f"the answers of batch {remote_id} could not be downloaded"):
            yield from self._download(remote_id)

    def cancel(self, remote_id: str) -> Progress:
        with self._calling(f"batch {remote_id} could not be cancelled"):
            return self._cancel(remote_id)

    def read(self, line: Line) -> Result | None:
        """Parse one result line; None for an invalid one."""
        raise NotImplementedError

    def drop_file(self, file_id: str) -> None:
        """Delete an uploaded file that no batch uses."""

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _calling(self, what: str, *, submitting: bool = False) -> Generator[None]:
        """Context manager: convert errors of a call; ``what`` begins their message."""
        try:
            yield
        except self._errors as error:
            raise _outcome(classify(error), what, submitting) from None

    # The calls of a provider, which raise ``_errors``.

    def _upload(self, tag: str, requests: Sequence[Request]) -> str:
        return ""

    def _submit(self, tag: str, file_id: str, requests: Sequence[Request]) -> Progress:
        raise NotImplementedError

    def _find(self, tag: str, file_id: str, since: float, count: int, known: set[str]) -> list[Progress]:
        raise NotImplementedError

    def _look_up(self, remote_id: str) -> Progress:
        raise NotImplementedError

    def _download(self, remote_id: str) -> Iterator[bytes]:
        raise NotImplementedError

    def _cancel(self, remote_id: str) -> Progress:
        raise NotImplementedError


def line_error(status: int | None, error: Any) -> CallError:
    """Return the classified error of a failed line."""
    given = cast(JsonObject, error) if isinstance(error, dict) else {"message": error}
    told = {**given, "message": given.get("message") or "no answer"}
    return classify(Refusal(status, {}, json.dumps({"error": told})))


class OpenAIBatches(Remote):
    """OpenAI's files and batches, which Groq and others also support."""

    most_requests = 50_000
    most_bytes = 150 * 2**20
    uploads = True
    certain = True
    endpoint: Any = "/v1/chat/completions"
    """The endpoint for each line, by the provider's name."""

    def __init__(self, api_key: str, api_base: str | None, timeout: float) -> None:
        import openai

        self._errors = (openai.OpenAIError, json.JSONDecodeError)
        self._client = openai.OpenAI(api_key=api_key, base_url=api_base, timeout=timeout, max_retries=RETRIES)

    def _upload(self, tag: str, requests: Sequence[Request]) -> str:
        lines = (
            {"custom_id": one.custom_id, "method": "POST", "url": self.endpoint, "body": one.body} for one in requests
        )
        return self._put_file(f"{tag}.jsonl", _json_lines(lines))

    def _put_file(self, name: str, content: bytes) -> str:
        return self._client.files.create(file=(name, content), purpose="batch").id

    def _submit(self, tag: str, file_id: str, requests: Sequence[Request]) -> Progress:
        # Not retried by the client, because a request whose response was lost may have started the batch.
        client = self._client.with_options(max_retries=0)
        made = client.batches.create(
            input_file_id=file_id,
            endpoint=self.endpoint,
            completion_window="24h",
            metadata={TAG_NAME: tag},
            extra_headers={"Idempotency-Key": tag},
        )
        return _openai_progress(made)

    def _find(self, tag: str, file_id: str, since: float, count: int, known: set[str]) -> list[Progress]:
        for batch in islice(self._client.batches.list(limit=100), LISTED_AT_MOST + 1):
            if (batch.metadata or {}).get(TAG_NAME) == tag or batch.input_file_id == file_id:
                return [_openai_progress(batch)]
        return []

    def _look_up(self, remote_id: str) -> Progress:
        return _openai_progress(self._client.batches.retrieve(remote_id))

    def _download(self, remote_id: str) -> Iterator[bytes]:
        for file_id in filter(None, self._files_of(remote_id)):
            with self._client.files.with_streaming_response.content(file_id) as answer:
                for line in answer.iter_lines():
                    yield line.encode()

    def _files_of(self, remote_id: str) -> list[str | None]:
        batch = self._client.batches.retrieve(remote_id)
        return [batch.output_file_id, batch.error_file_id]

    def read(self, line: Line) -> Result | None:
        custom_id, answer, error = line.get("custom_id"), line.get("response"), line.get("error")
        if not isinstance(custom_id, str):
            return None
        if isinstance(answer, dict):
            status, body = answer.get("status_code"), answer.get("body")
            if status == 200 and isinstance(body, dict):
                return Result(custom_id, body)
            inner = body.get("error", body) if isinstance(body, dict) else body
            return Result(custom_id, error=line_error(status if isinstance(status, int) else None, inner))
        code = error.get("code") if isinstance(error, dict) else None
        passed = code in ("batch_cancelled", "batch_canceled")
        return Result(custom_id, error=line_error(None, error), passed=passed)

    def _cancel(self, remote_id: str) -> Progress:
        return _openai_progress(self._client.batches.cancel(remote_id))

    def drop_file(self, file_id: str) -> None:
        with suppress(*self._errors):  # a leftover file costs nothing
            self._client.with_options(max_retries=1).files.delete(file_id)


def _json_lines(lines: Iterable[JsonObject]) -> bytes:
    return b"".join(json_bytes(line) + b"\n" for line in lines)


def _openai_progress(batch: Any) -> Progress:
    counts = batch.request_counts
    total, done, failed = (int(getattr(counts, name, 0) or 0) for name in ("total", "completed", "failed"))
    ended = batch.status in ("completed", "failed", "expired", "cancelled")
    status = str(batch.status)
    errors = getattr(batch.errors, "data", None) or [] if batch.status == "failed" else []
    if errors:
        status = f"{status}: {errors[0].message}"
    return Progress(batch.id, status, ended, total, done, failed)


class AzureBatches(OpenAIBatches):
    """OpenAI's protocol at an Azure resource, whose endpoint has no version and which processes a file before a batch can
    use it."""

    endpoint = "/chat/completions"

    def _put_file(self, name: str, content: bytes) -> str:
        made = self._client.files.create(file=(name, content), purpose="batch")
        if made.status != "processed":
            try:
                self._client.files.wait_for_processing(
                    made.id, poll_interval=FILE_POLL_SECONDS, max_wait_seconds=FILE_WAIT_SECONDS
                )
            except RuntimeError:
                raise StoppedError(
                    f"Azure has not read the questions in {FILE_WAIT_SECONDS:.0f} s", "run the same command again later"
                ) from None
        return made.id


class TogetherBatches(OpenAIBatches):
    """Together's files and batches: OpenAI's result format, with another upload, list and status terms.

    A batch cannot carry our tag; its file identifies it. The provider reports progress as a percentage.
    """

    most_bytes = 90 * 2**20

    def _upload(self, tag: str, requests: Sequence[Request]) -> str:
        content = _json_lines({"custom_id": one.custom_id, "body": one.body} for one in requests)
        made = self._ask(
            "post",
            "/files/upload",
            body={"purpose": "batch-api", "file_name": f"{tag}.jsonl", "file_type": "jsonl"},
            files=[("file", (f"{tag}.jsonl", content, "application/jsonl"))],
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )
        return str(made["id"])

    def _submit(self, tag: str, file_id: str, requests: Sequence[Request]) -> Progress:
        body = {"input_file_id": file_id, "endpoint": self.endpoint, "completion_window": "24h"}
        return _together_progress(self._ask("post", "/batches", body=body, options={"max_retries": 0})["job"])

    def _find(self, tag: str, file_id: str, since: float, count: int, known: set[str]) -> list[Progress]:
        there: list[JsonObject] = self._ask("get", "/batches") or []
        return [_together_progress(job) for job in there if job.get("input_file_id") == file_id]

    def _look_up(self, remote_id: str) -> Progress:
        return _together_progress(self._ask("get", f"/batches/{remote_id}"))

    def _cancel(self, remote_id: str) -> Progress:
        return _together_progress(self._ask("post", f"/batches/{remote_id}/cancel"))

    def _files_of(self, remote_id: str) -> list[str | None]:
        job = self._ask("get", f"/batches/{remote_id}")
        return [job.get("output_file_id"), job.get("error_file_id")]

    def _ask(self, method: str, path: str, **given: Any) -> Any:
        """Send a request that OpenAI's library has no method for, through its connection."""
        import httpx

        return getattr(self._client, method)(path, cast_to=httpx.Response, **given).json()


def _together_progress(job: JsonObject) -> Progress:
    word = str(job.get("status")).lower()
    ended = word in ("completed", "failed", "expired", "cancelled")
    reason = f": {job['error']}" if word == "failed" and job.get("error") else ""
    share = "" if ended or not job.get("progress") else f", {float(job['progress']):.0f} %"
    return Progress(str(job["id"]), f"{word}{reason}{share}", ended)


ANTHROPIC_ADDRESS = "https://api.anthropic.com"
_MESSAGE_BATCHES = "/v1/messages/batches"


class AnthropicBatches(Remote):
    """Anthropic's message batches. A batch cannot carry our tag, so the tag is in each line's ``custom_id``."""

    most_requests = 100_000
    most_bytes = 150 * 2**20
    uploads = False
    certain = False

    def __init__(self, api_key: str, api_base: str | None, timeout: float, beta: Sequence[str]) -> None:
        """``beta`` names the beta features that the questions use; names may be added until they are submitted."""
        import httpx

        self._errors = (httpx.HTTPError, json.JSONDecodeError)
        headers = {"x-api-key": api_key, "anthropic-version": "2023-06-01"}
        self._beta = beta
        base = (api_base or ANTHROPIC_ADDRESS).rstrip("/").removesuffix("/v1")
        transport = httpx.HTTPTransport(retries=RETRIES)
        self._client = httpx.Client(base_url=base, headers=headers, timeout=timeout, transport=transport)

    def _submit(self, tag: str, file_id: str, requests: Sequence[Request]) -> Progress:
        body = {"requests": [{"custom_id": one.custom_id, "params": one.body} for one in requests]}
        headers = {"content-type": "application/json"}
        if self._beta:
            headers["anthropic-beta"] = ",".join(self._beta)
        return _anthropic_progress(self._json("POST", _MESSAGE_BATCHES, content=json_bytes(body), headers=headers))

    def _find(self, tag: str, file_id: str, since: float, count: int, known: set[str]) -> list[Progress]:
        found: list[Progress] = []
        after: dict[str, str] = {}
        for _ in range(LISTED_AT_MOST // 100):
            page = self._json("GET", _MESSAGE_BATCHES, params={"limit": "100", **after})
            for one in page.get("data", []):
                progress = _anthropic_progress(one)
                # A minute of tolerance for clock differences.
                if _unix_time(one.get("created_at")) < since - 60:
                    return found
                if progress.remote_id not in known and progress.total == count:
                    found.append(progress)
            if not page.get("has_more"):
                break
            after = {"after_id": str(page.get("last_id"))}
        return found

    def _look_up(self, remote_id: str) -> Progress:
        return _anthropic_progress(self._json("GET", f"{_MESSAGE_BATCHES}/{remote_id}"))

    def _download(self, remote_id: str) -> Iterator[bytes]:
        with self._client.stream("GET", f"{_MESSAGE_BATCHES}/{remote_id}/results") as answer:
            if not answer.is_success:
                answer.read()  # the reason
            answer.raise_for_status()
            for line in answer.iter_lines():
                yield line.encode()

    def read(self, line: Line) -> Result | None:
        custom_id, result = line.get("custom_id"), line.get("result")
        if not isinstance(custom_id, str) or not isinstance(result, dict):
            return None
        kind = result.get("type")
        if kind == "succeeded" and isinstance(message := result.get("message"), dict):
            return Result(custom_id, message)
        if kind == "errored":
            error = result.get("error")
            inner = error.get("error", error) if isinstance(error, dict) else error
            name = inner.get("type") if isinstance(inner, dict) else None
            return Result(custom_id, error=line_error(_ANTHROPIC_STATUS.get(str(name), 500), inner))
        return Result(custom_id, error=line_error(None, {"message": f"{kind}"}), passed=kind == "canceled")

    def _cancel(self, remote_id: str) -> Progress:
        return _anthropic_progress(self._json("POST", f"{_MESSAGE_BATCHES}/{remote_id}/cancel"))

    def _json(self, method: str, path: str, **given: Any) -> JsonObject:
        return self._client.request(method, path, **given).raise_for_status().json()


class _GoneError(InputError):
    """The provider does not have the requested object."""


_ANTHROPIC_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


def _anthropic_progress(batch: JsonObject) -> Progress:
    counts: dict[str, int] = {name: int(value or 0) for name, value in (batch.get("request_counts") or {}).items()}
    failed = sum(counts.get(name, 0) for name in ("errored", "canceled", "expired"))
    status = str(batch.get("processing_status"))
    return Progress(
        str(batch["id"]), status, status == "ended", sum(counts.values()), counts.get("succeeded", 0), failed
    )


def _unix_time(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return float("inf")


def _outcome(found: CallError, what: str, submitting: bool) -> LsdataError:
    """Return the error for a failed call; submitted batches are not lost by it."""
    status = f" ({found.status})" if found.status else ""
    message = f"{what}{status}: {found.message}"
    if found.kind == "auth":
        remedy = (
            "add credit with the provider" if found.spent else "set a key that works, in the environment or in .env"
        )
        return MissingError(message, f"{remedy}, then run the same command again")
    if found.kind == "bad request" or (found.status is not None and found.status < 500 and found.status != 408):
        kind = StoppedError if found.crowded else _GoneError if found.status == 404 else InputError
        return kind(message, "run the same command again later, or without --batch")
    if submitting:
        return UnknownOutcomeError(
            message, "run the same command again: it checks whether the provider has the batch before submitting"
        )
    return StoppedError(message, "run the same command again later; submitted batches are not lost")
