"""One run on several GPUs: ``accelerate launch`` starts a process for each; the first reports progress.

It prints one JSON object per line: ``{"say": TEXT}``, ``{"checkpoint": FOLDER}`` or ``{"failed": [KIND, MESSAGE,
REMEDY]}``.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentscore_data.core.base import errors
from latentscore_data.core.base.errors import InputError, LsdataError, OutputError
from latentscore_data.core.models.base_models import pick_device
from latentscore_data.core.models.ranks import is_first
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.run import run_training

log = logging.getLogger(__name__)

LAST_LINES = 5
"""Lines of output that are shown if the processes fail."""

STOP_SECONDS = 30.0
"""Time-out for stopping the processes."""


def check_processes(spec: TrainSpec, processes: int) -> None:
    """Raise :class:`InputError` unless the batch can be divided evenly among the processes."""
    if spec.accumulation % processes:
        size = spec.per_device * processes
        raise InputError(
            f"batch.size {spec.batch_size} cannot be divided among {processes} processes of batch.per_device {spec.per_device}",
            f"use --set batch.size={-(-spec.batch_size // size) * size}, or a smaller batch.per_device",
        )


def train_together(
    spec: TrainSpec,
    folder: RunFolder,
    processes: int,
    *,
    on_checkpoint: Callable[[Path], None] | None = None,
    say: Callable[[str], None] = log.info,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Run :func:`run_training` in so many processes (1: in this one). Return the content of ``run.json``.

    Raises :class:`InputError` if the batch cannot be divided or the machine has fewer GPUs, the error of the first
    process, and :class:`OutputError` if the processes end without one.
    """
    if processes == 1 or folder.done:
        return run_training(spec, folder.path, on_checkpoint, say=say, deadline=deadline)
    check_processes(spec, processes)
    import torch

    on_cpu, gpus = pick_device(spec.device) == "cpu", torch.cuda.device_count()
    if not on_cpu and gpus < processes:
        raise InputError(
            f"train.processes is {processes}, but this machine has {gpus} GPUs", f"use --set processes={gpus}"
        )
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--num_processes", str(processes)),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
        *(["--cpu", "--num_cpu_threads_per_process", "1"] if on_cpu else ["--multi_gpu"]),
        *("--module", __name__, str(folder.path), json.dumps(deadline)),
    ]
    other_lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launched:
        try:
            assert launched.stdout is not None
            for line in launched.stdout:
                _handle(line, other_lines, say, on_checkpoint)
        except BaseException:
            launched.terminate()
            launched.wait(STOP_SECONDS)
            raise
    if launched.returncode or not folder.done:
        why = " | ".join(other_lines[-LAST_LINES:])[-500:] or "they printed nothing"
        raise OutputError(
            f"the processes of run {folder.run_id} ended with exit code {launched.returncode} ({why})", "run it again"
        )
    if on_checkpoint is not None:
        on_checkpoint(folder.path)
    return folder.record()


def _handle(
    line: str, other_lines: list[str], say: Callable[[str], None], on_checkpoint: Callable[[Path], None] | None
) -> None:
    """Handle a line of output: a report of the first process; any other line is added to ``other_lines``."""
    try:
        report = json.loads(line)
    except ValueError:
        report = None
    match report:
        case {"say": str(text)}:
            say(text)
        case {"checkpoint": str(path)}:
            if on_checkpoint is not None:
                on_checkpoint(Path(path))
        case {"failed": [str(kind), str(message), str(remedy)]}:
            raise getattr(errors, kind, InputError)(message, remedy)
        case _:
            other_lines.append(line.strip())
            log.debug("%s", line.rstrip())


def _report(**facts: Any) -> None:
    if is_first():
        print(json.dumps(facts), flush=True)  # noqa: T201


def main() -> None:
    """Run one of the processes."""
    import torch.distributed

    folder, deadline = RunFolder(Path(sys.argv[1])), json.loads(sys.argv[2])
    spec = folder.spec()
    assert spec is not None, "train_together has written it"
    try:
        run_training(
            spec,
            folder.path,
            lambda path: _report(checkpoint=str(path)) if path != folder.path else None,
            say=lambda text: _report(say=text),
            deadline=deadline,
        )
    except LsdataError as error:
        _report(failed=[type(error).__name__, error.message, error.remedy])
        raise SystemExit(1) from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
