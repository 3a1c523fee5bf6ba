"""The plugin as other projects meet it: in a pytest of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from vhostuser.testing.packed_rings import PACKED_FEATURES, PackedRingBuilder
from vhostuser.testing.rings import RingBuilder
from vhostuser.wire.frontend_messages import SetOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from vhostuser.testing.memory import GuardedMemory
    from vhostuser.testing.plugin import FrontendFactory, RingFactory

pytest_plugins = ["pytester"]


def run(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    pytester.makepyfile(test)
    return pytester.runpytest_subprocess("-p", "no:trio", "-p", "no:cacheprovider", "-W", "error", timeout=25)


def test_a_back_end_is_tested_in_ten_lines_and_without_trio(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
        def test_entropy(vhost_user_no_leaks, vhost_user_device, vhost_user_frontend):
            frontend = vhost_user_frontend(vhost_user_device("rng").socket_path)
            frontend.negotiate()
            frontend.share_memory()
            assert frontend.open_ring(0).request(writable=[16]).length == 16
        """,
    ).assert_outcomes(passed=1)


def test_a_front_end_is_tested_with_a_script(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
        from vhostuser.wire.frontend_messages import SetFeatures

        def test_negotiation(vhost_user_no_leaks, vhost_user_backend, vhost_user_frontend):
            backend = vhost_user_backend(lambda peer: peer.run())
            frontend = vhost_user_frontend(backend.path)
            frontend.negotiate()
            frontend.close()
            assert isinstance(backend.join()[-1], SetFeatures)
        """,
    ).assert_outcomes(passed=1)


def test_a_script_that_raised_fails_the_test(pytester: pytest.Pytester) -> None:
    found = run(
        pytester,
        """
        def test_it(vhost_user_backend, vhost_user_frontend):
            def script(peer):
                peer.take()
                raise AssertionError("that was not to be asked")
            frontend = vhost_user_frontend(vhost_user_backend(script).path)
            from vhostuser.wire.frontend_messages import SetOwner
            frontend.call(SetOwner())
        """,
    )
    found.assert_outcomes(passed=1, errors=1)
    found.stdout.fnmatch_lines(["*that was not to be asked*"])


def test_builders_need_no_peer(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
        from vhostuser.wire.features import VirtioFeature

        def test_split(vhost_user_ring, vhost_user_memory):
            ring = vhost_user_ring(4)
            ring.chain(0, (ring.buffer(16), True))
            ring.offer(0)
            assert len(ring.open_device().pop(8)) == 1
            assert vhost_user_memory((0x1000, 64)).intact

        def test_packed(vhost_user_ring):
            ring = vhost_user_ring(4, int(VirtioFeature.VERSION_1 | VirtioFeature.RING_PACKED))
            ring.offer(1, (ring.buffer(16), True))
            assert len(ring.open_device().pop(8)) == 1
        """,
    ).assert_outcomes(passed=2)


def test_a_leak_is_named(pytester: pytest.Pytester) -> None:
    found = run(
        pytester,
        """
        import os

        kept = []

        def test_it(vhost_user_no_leaks):
            kept.append(os.open(os.devnull, os.O_RDONLY))
        """,
    )
    found.assert_outcomes(passed=1, errors=1)
    found.stdout.fnmatch_lines(["*this test leaks*", "*fds: *"])


def test_the_plugin_costs_nothing_until_it_is_used() -> None:
    script = "import sys, vhostuser.testing.plugin; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=25)
    assert {"trio", "construct", "rich", "posix_ipc", "vhostuser.wire"}.isdisjoint(ran.stdout.split())


def test_a_project_that_does_not_use_it_does_not_notice(pytester: pytest.Pytester) -> None:
    found = run(pytester, "def test_it(request): assert not [n for n in request.fixturenames if 'vhost' in n]")
    found.assert_outcomes(passed=1)


# --- and here ---


def test_rings_of_both_formats(vhost_user_ring: RingFactory) -> None:
    assert isinstance(vhost_user_ring(), RingBuilder)
    assert isinstance(vhost_user_ring(4, PACKED_FEATURES), PackedRingBuilder)


def test_memory_with_guards(vhost_user_memory: Callable[..., GuardedMemory]) -> None:
    memory = vhost_user_memory((0x1000, 64))
    memory.write(0x1000, b"x" * 64)
    assert memory.intact


def test_a_front_end_on_a_socket(vhost_user_no_leaks: None, vhost_user_frontend: FrontendFactory) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        vhost_user_frontend(ours).call(SetOwner())
        assert len(theirs.recv(64)) == 12
