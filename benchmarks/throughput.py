"""Measure the throughput of ``lsdata configs --only generate``, compared with plain litellm loops on the same server.

The loops hand over the answer type (pydantic) or its JSON schema (dict). ``lsdata`` keeps each answer, validates it and
writes its row as well. Rate: requests divided by the time between the first and the last one at the server, which answers
after 50 ms. CPU: of the whole processes, start included. Prints one JSON line.
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
    from latentscore.prompt import config_system, vibe_message

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


def measured(name: str, given: argparse.Namespace, concurrency: int) -> dict[str, float]:
    """Calls per second at the server, and CPU seconds of the whole process per 1,000 calls."""
    same = ("--calls", str(given.calls), "--concurrency", str(concurrency), "--model", given.model)
    with chat_server("--delay", "0.05") as url, tempfile.TemporaryDirectory() as folder:
        if name == "lsdata":
            write_vibes(Path(folder), given.calls)
            options = ("--n", "1", "--max-concurrency", str(concurrency))
            command = configs_command(Path(folder), url, *options, model=given.model)
        else:
            command = [sys.executable, __file__, *same, "--loop", name, url]
        cpu, _ = timed(command)
        seen = stats(url)
    assert seen["statuses"] == {"200": given.calls}, seen
    return {
        "per_second": round(given.calls / seen["seconds"], 1),
        "cpu_seconds_per_1000": round(cpu / given.calls * 1000, 2),
        "most_in_flight": seen["most_in_flight"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--more", type=int, default=1024, help="lsdata is measured with so many in flight, too")
    parser.add_argument("--model", default="openai/bench")
    parser.add_argument("--loop", nargs=2, metavar=("SCHEMA", "URL"), help="internal: run one plain loop")
    given = parser.parse_args()
    if given.loop:
        plain_loop(given.loop[1], given.model, given.calls, given.concurrency, given.loop[0])
        return
    figures = {name: measured(name, given, given.concurrency) for name in ("lsdata", "dict", "pydantic")}
    more = measured("lsdata", given, given.more)
    per_second = figures["lsdata"]["per_second"]
    result = {
        "benchmark": "throughput",
        "calls": given.calls,
        "concurrency": given.concurrency,
        "model": given.model,
        **figures,
        f"lsdata_at_{given.more}": more,
        "times_plain_pydantic_loop": round(per_second / figures["pydantic"]["per_second"], 2),
        "times_plain_dict_loop": round(per_second / figures["dict"]["per_second"], 2),
        f"at_{given.more}_to_{given.concurrency}": round(more["per_second"] / per_second, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
