"""What the doctor makes of a machine, and of machines that are worse than this one."""

from __future__ import annotations

import resource
import stat
import sys
from collections import Counter
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from frontend.doctor import Level, examine
from frontend.doctor import limits as limits_room
from frontend.doctor import memory as memory_room
from frontend.doctor import programs as programs_room
from frontend.doctor import rings as rings_room
from frontend.doctor import versions as versions_room
from tests.kinds import needs_eventfd, needs_memfd
from tests.peers.folder import PeersFolder
from vhostuser.memory import guard, ordering
from vhostuser.memory.backends import MemoryBackendShm

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.doctor import Finding

MIB = 1 << 20


def executable(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def is_broken(finding: Finding, *words: str) -> bool:
    return finding.level is Level.BROKEN and finding.advice != "" and all(word in finding.found for word in words)


def is_hint(finding: Finding, *words: str) -> bool:
    return finding.level is Level.HINT and finding.advice != "" and all(word in finding.found for word in words)


def test_everything_is_looked_at_once() -> None:
    counted = Counter((finding.topic, finding.name) for finding in examine())
    assert set(counted.values()) == {1}
    assert {topic for topic, _ in counted} == {"rings", "memory", "limits", "programs", "versions"}


def test_a_finding_that_is_not_good_has_a_next_step() -> None:
    assert all(bool(finding.advice) == (finding.level is not Level.OK) for finding in examine())


# --- rings ---


@pytest.mark.parametrize(
    ("chosen", "asked_for", "found", "level"),
    [
        ("native", "", "native: it is built", Level.OK),
        ("python", "", "python: the native one is not built", Level.HINT),
        ("python", "python", "python: VHOST_USER_ENGINE asks for it", Level.OK),
    ],
)
def test_the_engine_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, chosen: str, asked_for: str, found: str, level: Level
) -> None:
    module = ModuleType(rings_room.ENGINE_MODULE)
    module.ENGINE = chosen  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, rings_room.ENGINE_MODULE, module)
    monkeypatch.setenv(rings_room.ENGINE_VARIABLE, asked_for)
    assert (rings_room.engine().found, rings_room.engine().level) == (found, level)


def test_an_engine_that_cannot_be_loaded_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "engine_without_a_heart.py").write_text("raise ImportError('it is not built')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rings_room, "ENGINE_MODULE", "engine_without_a_heart")
    assert is_broken(rings_room.engine(), "it is not built")


def test_the_notifier_that_the_environment_asks_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VHOST_USER_NOTIFIER", "pipe")
    assert rings_room.notifier().found == "pipe: VHOST_USER_NOTIFIER asks for it"


def test_a_notifier_that_nobody_knows_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VHOST_USER_NOTIFIER", "pigeon")
    assert is_broken(rings_room.notifier(), "VHOST_USER_NOTIFIER=pigeon")


@needs_eventfd
def test_an_eventfd_is_what_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VHOST_USER_NOTIFIER", raising=False)
    assert (rings_room.notifier().found, rings_room.notifier().level) == ("eventfd", Level.OK)


def test_a_fence_that_is_none_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rings_room.fences().level is Level.OK
    monkeypatch.setattr(ordering, "FENCE_IS_FULL", False)
    assert is_hint(rings_room.fences(), "notifications are never suppressed")


def test_without_a_guard_other_memory_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SUPPORTED", False)
    assert is_hint(rings_room.sigbus_guard(), "not on ")
    monkeypatch.setattr(guard, "SUPPORTED", True)
    assert rings_room.sigbus_guard().level is Level.OK


@pytest.mark.parametrize(("why_not", "level"), [(None, Level.OK), ("there is no /dev/kvm", Level.HINT)])
def test_kvm_is_not_needed(monkeypatch: pytest.MonkeyPatch, why_not: str | None, level: Level) -> None:
    monkeypatch.setattr(rings_room, "why_no_kvm", lambda: why_not)
    assert rings_room.kvm().level is level


# --- memory ---


@needs_memfd
def test_both_kinds_of_memory_are_tried() -> None:
    tried = {finding.name: finding.level for finding in memory_room.look_at_memory()}
    assert (tried["shm"], tried["memfd, sealed"]) == (Level.OK, Level.OK)


def test_a_system_without_memfd_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    assert is_hint(memory_room.memfd(), "memory-backend-shm")


def test_memory_that_is_refused_is_broken() -> None:
    finding = memory_room.tried("shm", MemoryBackendShm(size=1 << 62), "buy some")
    assert (is_broken(finding), finding.advice) == (True, "buy some")


def test_huge_pages_are_counted_and_never_needed() -> None:
    assert is_hint(memory_room.huge_pages({}), "none of any size")
    assert is_hint(memory_room.huge_pages({2 * MIB: 0}), "0 free of 2M")
    assert memory_room.huge_pages({2 * MIB: 0, 1024 * MIB: 1}).level is Level.OK


# --- limits ---


def test_few_files_are_a_hint() -> None:
    assert is_hint(limits_room.files(256), "256")
    assert limits_room.files(1024).level is Level.OK
    assert limits_room.files(resource.RLIM_INFINITY).found == "unlimited"


def test_shared_memory_that_is_no_folder_is_not_told(tmp_path: Path) -> None:
    assert limits_room.shm(str(tmp_path / "missing")).found.startswith("not told")
    assert " MiB free of " in limits_room.shm(str(tmp_path)).found


def test_little_shared_memory_is_a_hint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits_room, "ENOUGH_SHM", 1 << 62)
    assert is_hint(limits_room.shm(str(tmp_path)))


def test_one_processor_is_a_hint() -> None:
    assert is_hint(limits_room.processors(1), "1")
    assert limits_room.processors(2).level is Level.OK


def test_where_nobody_says_which_processors_may_be_used_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert limits_room.usable_processors() == 7


def test_locked_memory_is_only_told() -> None:
    assert limits_room.locked(8 * MIB).found == "8 MiB"


# --- programs ---


def test_a_program_is_found_with_its_version(tmp_path: Path) -> None:
    executable(tmp_path, "qemu-storage-daemon", "echo qemu-storage-daemon version 10.0.2 '(Debian 1:10.0.2+ds)'")
    finding = programs_room.program("qemu-storage-daemon", [tmp_path / "nothing", tmp_path])
    assert (finding.level, finding.found) == (Level.OK, f"10.0.2 in {tmp_path}")


def test_a_program_in_the_home_is_told_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin", "passt", "true")
    assert programs_room.program("passt", [tmp_path / "bin"]).found == "of unknown version, in ~/bin"


def test_a_program_that_fails_is_broken(tmp_path: Path) -> None:
    path = executable(tmp_path, "virtiofsd", "exit 3")
    finding = programs_room.program("virtiofsd", [tmp_path])
    assert is_broken(finding, "exit status 3")
    assert str(path) in finding.advice


def test_a_program_that_is_missing_is_a_hint(tmp_path: Path) -> None:
    assert is_hint(programs_room.program("passt", [tmp_path]), "not found")


@pytest.mark.parametrize("variables", [{}, {"XDG_CACHE_HOME": "/var/cache/me"}, {"VHOST_USER_PEERS": "elsewhere"}])
def test_programs_are_looked_for_where_make_peers_puts_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name in ("XDG_CACHE_HOME", "VHOST_USER_PEERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert programs_room.search_path()[-1] == PeersFolder.default().bin


# --- versions ---


def test_dependencies_are_those_of_the_project() -> None:
    found = {finding.name: finding.level for finding in versions_room.look_at_versions()}
    assert found.keys() >= {"Python", "python-vhost-user", "trio", "construct", "posix_ipc", "click", "rich"}
    assert "pytest" not in found
    assert set(found.values()) == {Level.OK}


def test_a_dependency_that_is_too_old_or_missing_is_broken() -> None:
    assert is_broken(versions_room.dependency("click", "99.1"), "expected 99.1 or later")
    assert is_broken(versions_room.dependency("no-such-thing", "1"), "not installed")


def test_a_package_that_is_not_installed_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions_room, "DISTRIBUTION", "no-such-thing")
    assert is_broken(list(versions_room.look_at_versions())[-1], "not installed")


def test_another_python_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    assert is_broken(next(versions_room.look_at_versions()))
