"""A loopback server with a model list in OpenRouter's format."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import LoopbackServer

FLASH = "openrouter/google/gemini-2.5-flash"
LIST = {
    "data": [
        {"id": "google/gemini-2.5-flash", "pricing": {"prompt": "0.0000005", "completion": "0.000003"}},
        {
            "id": "maker/heard",
            "pricing": {"prompt": "1e-6", "completion": "2e-6", "audio": "5e-6", "input_cache_read": "1e-7"},
        },
        {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
        {"id": "no/price"},
        "rubbish",
    ]
}


class ModelList(LoopbackServer):
    def __init__(self, answer: Any = LIST, status: int = 200) -> None:
        self.value, self.status = answer, status
        self.headers: list[dict[str, str]] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.reply(request, self.status if request.path == "/api/v1/models" else 404, self.value)
