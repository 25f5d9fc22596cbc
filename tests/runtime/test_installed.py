"""The number of cores that a process may use: affinity, and CPU quotas of cgroups as containers set them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from latentscore.installed import available_cores


def cgroups(root: Path, own: str, quotas: dict[str, str]) -> Path:
    """A file system in which this process is in the cgroup ``own``; ``quotas`` are the contents of cpu.max by cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, content in quotas.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(content)
    return root


@pytest.mark.parametrize(
    ("own", "quotas", "cores"),
    [
        ("0::/\n", {"": "150000 100000\n"}, 2),
        ("0::/\n", {"": "50000 100000\n"}, 1),
        ("0::/\n", {"": "max 100000\n"}, 8),
        ("0::/\n", {"": "6400000 100000\n"}, 8),
        ("0::/ci.slice/job\n", {"ci.slice": "300000 100000\n", "ci.slice/job": "max 100000\n"}, 3),
        ("12:cpuset:/\n0::/job\n", {"job": "400000 100000\n"}, 4),
        ("3:cpu,cpuacct:/docker/a\n", {}, 8),
        ("0::/\n", {"": "nonsense"}, 8),
    ],
    ids=[
        "container",
        "half a core",
        "no quota",
        "more than there are",
        "group above",
        "hybrid",
        "version 1",
        "damaged",
    ],
)
def test_a_cpu_quota_limits_the_number_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, quotas: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_cores(cgroups(tmp_path, own, quotas)) == cores


def test_without_cgroups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert available_cores(tmp_path) == 2
