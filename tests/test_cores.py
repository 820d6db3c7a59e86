"""How many cores a process has where a container or systemd limits it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import cores as module
from app.cores import cores

V1 = "cpu.cfs_quota_us"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {}, 16),
        ("0::/", {"cpu.max": "max 100000\n"}, 16),
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),  # a container that sees its own group as the root
        ("0::/", {"cpu.max": "3200000 100000\n"}, 16),
        ("0::/", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/system.slice/afterimage.service", {"system.slice/afterimage.service/cpu.max": "150000 50000\n"}, 3),
        ("0::/a/b", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4),
        ("4:cpu,cpuacct:/docker/1\n3:cpuset:/", {f"cpu/{V1}": "200000\n"}, 2),  # of the host, which is not seen
        ("4:cpu,cpuacct:/docker/1\n0::/", {f"cpu/docker/1/{V1}": "300000\n"}, 3),
        ("4:cpu:/", {f"cpu/{V1}": "-1\n"}, 16),
        ("4:cpuset:/", {f"cpu/{V1}": "100000\n"}, 16),
    ],
)
def test_the_limits_of_control_groups_count(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "groups").write_text(groups)
    for name, content in files.items():
        file = tmp_path / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.with_name("cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(module, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(module, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert cores() == expected


def test_without_control_groups_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUPS", tmp_path / "absent")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds processes to cores")
def test_a_process_that_is_bound_to_one_core_has_one() -> None:
    bind = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])"
    program = f"{bind}; from app.cores import cores; print(cores())"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "1\n"
