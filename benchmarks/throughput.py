"""How fast ``lsdata configs --only generate`` asks, against plain litellm loops on the same server.

Rate: requests divided by the time between the first and the last one at the server, which answers after 50 ms.
CPU: of the whole processes. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from _measure import chat_server, configs_command, stats, timed, write_vibes


def plain_loop(url: str, model: str, calls: int, concurrency: int, schema: str) -> None:
    """What one would write first: a semaphore around ``litellm.acompletion``."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import asyncio

    import litellm

    from latentscore import MusicConfigPromptPayload
    from latentscore_data.core.llm.prompts import config_system, vibe_message

    as_dict = {
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "schema": MusicConfigPromptPayload.model_json_schema(),
            "strict": True,
        },
    }
    response_format: Any = MusicConfigPromptPayload if schema == "pydantic" else as_dict

    async def run() -> None:
        free = asyncio.Semaphore(concurrency)

        async def one(number: int) -> None:
            vibe = f"a damp november street, the lamps of house {number} just lit"
            async with free:
                await litellm.acompletion(
                    model=model,
                    api_base=url,
                    api_key="no-key",
                    messages=[
                        {"role": "system", "content": config_system()},
                        {"role": "user", "content": vibe_message(vibe)},
                    ],
                    response_format=response_format,
                    temperature=0.9,
                    max_tokens=3000,
                    seed=0,
                    timeout=120,
                )

        await asyncio.gather(*(one(number) for number in range(calls)))

    asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--model", default="openai/bench")
    parser.add_argument("--loop", nargs=2, metavar=("SCHEMA", "URL"), help="internal: run one plain loop")
    given = parser.parse_args()
    if given.loop:
        plain_loop(given.loop[1], given.model, given.calls, given.concurrency, given.loop[0])
        return
    figures: dict[str, dict[str, float]] = {}
    same = ("--calls", str(given.calls), "--concurrency", str(given.concurrency), "--model", given.model)
    for name in ("pydantic", "dict", "lsdata"):
        with chat_server("--delay", "0.05") as url, tempfile.TemporaryDirectory() as folder:
            if name == "lsdata":
                write_vibes(Path(folder), given.calls)
                options = ("--n", "1", "--max-concurrency", str(given.concurrency))
                command = configs_command(Path(folder), url, *options, model=given.model)
            else:
                command = [sys.executable, __file__, *same, "--loop", name, url]
            cpu, _ = timed(command)
            seen = stats(url)
            assert seen["statuses"] == {"200": given.calls}, seen
            figures[name] = {"per_second": round(given.calls / seen["seconds"], 1), "cpu_seconds": round(cpu, 2)}
    result = {
        "benchmark": "throughput",
        "calls": given.calls,
        "concurrency": given.concurrency,
        "model": given.model,
        **figures,
        "times_plain_pydantic_loop": round(figures["lsdata"]["per_second"] / figures["pydantic"]["per_second"], 2),
        "cpu_beyond_dict_loop": round(figures["lsdata"]["cpu_seconds"] / figures["dict"]["cpu_seconds"] - 1, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
