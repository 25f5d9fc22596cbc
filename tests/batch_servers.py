"""Loopback servers of the batch protocols: OpenAI's files and batches, as they are with OpenAI and Groq, with Azure and with
Together; Anthropic's message batches.

What a batch is asked is answered by ``reply`` as a direct call is. Everything that was bought is counted; a batch ends when
:meth:`BatchServer.finish` says so, or at once with ``ends=True``. ``kill_at`` names moments at which the client's process is
killed with SIGKILL: the request is done (or not, with ``before:``; or a second later, with ``late:``), its answer never
arrives.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import LoopbackServer
from servers import completion

Body = dict[str, Any]
Reply = Callable[[Body], "str | Body"]


@dataclass
class Sold:
    """One batch as the server has it. ``changed`` turns its result lines into what the server sends."""

    id: str
    requests: list[Body]
    created: float = field(default_factory=time.time)
    status: str = "in_progress"
    metadata: dict[str, str] = field(default_factory=dict)
    file: str = ""


class BatchServer(LoopbackServer):
    """What both protocols share."""

    def __init__(self, reply: Reply, *, ends: bool = False) -> None:
        self.reply_to = reply
        self.ends = ends
        self.batches: dict[str, Sold] = {}
        self.calls: Counter[str] = Counter()
        self.pid: int | None = None
        self.kill_at: str | None = None
        self.change: Callable[[list[Body]], list[Body]] = lambda lines: lines
        self.refuse: tuple[int, Body] | None = None
        self.end_status = "completed"
        self.busy: Callable[[], bool] = lambda: False
        """Asked at each poll of one batch: True refuses it with 503."""

    @property
    def asked(self) -> Counter[str]:
        """How often each question was bought: its user message and its seed."""
        return Counter(
            f"{body.get('seed', '')}|{self.user(body)}" for sold in self.batches.values() for body in sold.requests
        )

    def user(self, body: Body) -> str:
        return json.dumps(body["messages"][-1]["content"])

    def finish(self, status: str = "completed") -> None:
        for sold in self.batches.values():
            if sold.status in ("in_progress", "canceling", "cancelling"):
                sold.status = status

    def takes(self, request: BaseHTTPRequestHandler) -> bool:
        """False for a submission that is refused or lost; True, perhaps after a second, for one that is taken."""
        if self.refuse is not None:
            self.reply(request, self.refuse[0], self.refuse[1])
            return False
        if self.moment("before:submit"):
            return False
        if self.moment("late:submit"):
            time.sleep(1)
        return True

    def moment(self, name: str) -> bool:
        """Kill the client where it is asked for; True when that was now."""
        if self.kill_at != name or self.pid is None:
            return False
        self.kill_at = None
        os.kill(self.pid, signal.SIGKILL)
        time.sleep(0.2)
        return True

    def body_of(self, request: BaseHTTPRequestHandler) -> bytes:
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))

    def send_lines(self, request: BaseHTTPRequestHandler, lines: list[Body], kill: str) -> None:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        request.send_response(200)
        request.send_header("Content-Type", "application/x-jsonl")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if self.kill_at == kill:
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            time.sleep(0.3)
        self.moment(kill)
        try:
            request.wfile.write(data)
        except OSError:
            return

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        try:
            self.route(request, request.path.split("?")[0], self.body_of(request))
        except (BrokenPipeError, ConnectionResetError):
            return

    def route(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        raise NotImplementedError


class OpenAIBatchServer(BatchServer):
    """Files, batches and direct chat completions below ``/v1``."""

    below = "/v1"
    endpoint = "/v1/chat/completions"

    def __init__(self, reply: Reply, *, ends: bool = False) -> None:
        super().__init__(reply, ends=ends)
        self.files: dict[str, bytes] = {}
        self.direct: list[Body] = []

    @property
    def address(self) -> str:
        return f"{self.url}{self.below}"

    def route(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        method, parts = request.command, path.removeprefix(f"{self.below}/").split("/")
        self.calls[f"{method} {parts[0]}"] += 1
        if parts == ["chat", "completions"]:
            asked = json.loads(body)
            self.direct.append(asked)
            self.reply(request, 200, self._completion(asked))
        elif parts == ["files"] and method == "POST":
            if not self.moment("before:upload"):
                self._upload(request, body)
        elif parts[0] == "files" and method == "DELETE":
            self.files.pop(parts[1], None)
            self.reply(request, 200, {"id": parts[1], "object": "file", "deleted": True})
        elif parts[0] == "files":
            self._content(request, parts[1])
        elif parts == ["batches"] and method == "POST":
            self._create(request, json.loads(body))
        elif parts == ["batches"]:
            data = [self._batch(sold) for sold in reversed(self.batches.values())]
            self.reply(request, 200, {"object": "list", "data": data, "has_more": False})
        elif parts[1] not in self.batches:
            self.reply(request, 404, {"error": {"message": "no such batch", "code": "not_found"}})
        else:
            sold = self.batches[parts[1]]
            if parts[-1] == "cancel":
                sold.status = "cancelling"
            self.moment("poll")
            if self.busy():
                self.reply(request, 503, {"error": {"message": "overloaded"}})
                return
            self.reply(request, 200, self._batch(sold))

    def _upload(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + body, policy=email.policy.HTTP)
        part = next(one for one in form.iter_parts() if one.get_filename())  # type: ignore[attr-defined]
        file_id = f"file-{len(self.files) + 1}"
        self.files[file_id] = part.get_payload(decode=True)
        self.moment("upload")
        self.reply(request, 200, self._file(file_id))

    def _file(self, file_id: str) -> Body:
        return {
            "id": file_id, "object": "file", "bytes": 1, "created_at": 1, "filename": "x.jsonl", "purpose": "batch",
            "status": "processed",
        }  # fmt: skip

    def _create(self, request: BaseHTTPRequestHandler, asked: Body) -> None:
        if not self.takes(request):
            return
        assert asked["endpoint"] == self.endpoint
        lines = self._lines_of(asked["input_file_id"])
        sold = Sold(f"batch_{len(self.batches) + 1}", [], metadata=asked.get("metadata") or {})
        sold.file = asked["input_file_id"]
        sold.requests = [{**line["body"], "custom_id": line["custom_id"]} for line in lines]
        if self.ends:
            sold.status = self.end_status
        self.batches[sold.id] = sold
        self.moment("submit")
        self.reply(request, 200, self._made(sold))

    def _lines_of(self, file_id: str) -> list[Body]:
        lines = [json.loads(line) for line in self.files[file_id].splitlines()]
        assert all(line["url"] == self.endpoint for line in lines)
        return lines

    def _made(self, sold: Sold) -> Body:
        return self._batch(sold)

    def _batch(self, sold: Sold) -> Body:
        ended = sold.status in ("completed", "expired", "cancelled")
        good, bad = self._results(sold) if ended else ([], [])
        return {
            "id": sold.id, "object": "batch", "endpoint": self.endpoint, "input_file_id": sold.file,
            "completion_window": "24h", "status": sold.status, "created_at": int(sold.created),
            "metadata": sold.metadata, "output_file_id": f"out-{sold.id}" if good else None,
            "error_file_id": f"err-{sold.id}" if bad else None,
            "errors": {"data": [{"message": "model not allowed in batches"}]} if sold.status == "failed" else None,
            "request_counts": {"total": len(sold.requests), "completed": len(good), "failed": len(bad)},
        }  # fmt: skip

    def _results(self, sold: Sold) -> tuple[list[Body], list[Body]]:
        lines = self.change([self._line(body) for body in sold.requests])
        good = [one for one in lines if (one.get("response") or {}).get("status_code") == 200]
        return good, [one for one in lines if one not in good]

    def _line(self, body: Body) -> Body:
        answer = {"status_code": 200, "request_id": "r", "body": self._completion(body)}
        return {"id": f"line-{body['custom_id']}", "custom_id": body["custom_id"], "response": answer, "error": None}

    def _completion(self, body: Body) -> Body:
        made = self.reply_to(body)
        return made if isinstance(made, dict) else completion(made, body)

    def _content(self, request: BaseHTTPRequestHandler, file_id: str) -> None:
        kind, _, batch = file_id.partition("-")
        good, bad = self._results(self.batches[batch])
        self.send_lines(request, good if kind == "out" else bad, "download")


class AzureBatchServer(OpenAIBatchServer):
    """A resource: the same below ``/openai/v1``, with files that are read before a batch may name them."""

    below = "/openai/v1"
    endpoint = "/chat/completions"

    def __init__(self, reply: Reply, *, ends: bool = False) -> None:
        super().__init__(reply, ends=ends)
        self.read: set[str] = set()

    def route(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        parts = path.removeprefix(f"{self.below}/").split("/")
        if request.command == "GET" and parts[0] == "files" and len(parts) == 2:
            self.read.add(parts[1])
            self.reply(request, 200, self._file(parts[1]))
        elif request.command == "POST" and parts == ["batches"] and json.loads(body)["input_file_id"] not in self.read:
            self.reply(request, 400, {"error": {"message": "the file is not processed"}})
        else:
            super().route(request, path, body)

    def _file(self, file_id: str) -> Body:
        return {**super()._file(file_id), "status": "processed" if file_id in self.read else "pending"}


class TogetherBatchServer(OpenAIBatchServer):
    """The same with an upload of its own, jobs in place of batches, a plain list of them, and words in capitals."""

    def route(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        super().route(request, path.replace("/files/upload", "/files"), body)

    def reply(
        self, request: BaseHTTPRequestHandler, status: int, value: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        if isinstance(value, dict) and value.get("object") == "list":
            value = value["data"]
        super().reply(request, status, value, headers)

    def _upload(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        assert request.path.endswith("/files/upload")
        assert all(word in body for word in (b"batch-api", b'name="file_name"', b'name="file_type"'))
        super()._upload(request, body)

    def _lines_of(self, file_id: str) -> list[Body]:
        lines = [json.loads(line) for line in self.files[file_id].splitlines()]
        assert all(line.keys() == {"custom_id", "body"} for line in lines)
        return lines

    def _made(self, sold: Sold) -> Body:
        return {"job": self._batch(sold), "warning": ""}

    def _batch(self, sold: Sold) -> Body:
        made = super()._batch(sold)
        names = ("id", "input_file_id", "output_file_id", "error_file_id", "endpoint")
        job = {name: made[name] for name in names}
        status = "IN_PROGRESS" if sold.status == "cancelling" else sold.status.upper()
        return {**job, "status": status, "progress": 50.0, "error": None, "model_id": "m", "user_id": "u"}


class AnthropicBatchServer(BatchServer):
    """Message batches below ``/v1/messages/batches``."""

    def __init__(self, reply: Reply, *, ends: bool = False) -> None:
        super().__init__(reply, ends=ends)
        self.end_status = "ended"
        self.headers: list[dict[str, str]] = []

    def route(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        method, parts = request.command, path.removeprefix("/v1/messages/batches").strip("/").split("/")
        self.calls[f"{method} batches"] += 1
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if parts == [""] and method == "POST":
            self._create(request, json.loads(body))
        elif parts == [""]:
            data = [self._batch(sold) for sold in reversed(self.batches.values())]
            self.reply(request, 200, {"data": data, "has_more": False, "first_id": None, "last_id": None})
        elif parts[0] not in self.batches:
            self.reply(request, 404, {"type": "error", "error": {"type": "not_found_error", "message": "no"}})
        elif parts[-1] == "results":
            sold = self.batches[parts[0]]
            self.send_lines(request, self.change([self._line(body) for body in sold.requests]), "download")
        else:
            sold = self.batches[parts[0]]
            if parts[-1] == "cancel":
                sold.status = "canceling"
            self.moment("poll")
            self.reply(request, 200, self._batch(sold))

    def _create(self, request: BaseHTTPRequestHandler, asked: Body) -> None:
        if not self.takes(request):
            return
        sold = Sold(f"msgbatch_{len(self.batches) + 1}", [])
        sold.requests = [{**one["params"], "custom_id": one["custom_id"]} for one in asked["requests"]]
        if self.ends:
            sold.status = "ended"
        self.batches[sold.id] = sold
        self.moment("submit")
        self.reply(request, 200, self._batch(sold))

    def finish(self, status: str = "ended") -> None:
        super().finish(status)

    def _batch(self, sold: Sold) -> Body:
        count, ended = len(sold.requests), sold.status == "ended"
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if ended else "processing"] = count
        made = datetime.fromtimestamp(sold.created, UTC).isoformat()
        return {
            "id": sold.id, "type": "message_batch", "processing_status": sold.status, "request_counts": counts,
            "created_at": made, "expires_at": made, "ended_at": made if ended else None, "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{sold.id}/results" if ended else None,
        }  # fmt: skip

    def _line(self, body: Body) -> Body:
        made = self.reply_to(
            {**body, "messages": [{"role": "system", "content": body.get("system")}, *body["messages"]]}
        )
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": [{"type": "text", "text": made}], "stop_reason": "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 1000, "output_tokens": 500},
        }  # fmt: skip
        return {"custom_id": body["custom_id"], "result": {"type": "succeeded", "message": message}}
