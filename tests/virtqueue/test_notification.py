"""The arithmetic of notification suppression."""

import pytest

from vhostuser.virtqueue.notification import needs_event


@pytest.mark.parametrize(
    ("event", "new", "old", "expected"),
    [
        (0, 1, 0, True),
        (0, 2, 1, False),
        (65535, 0, 65535, True),
        (65534, 1, 65533, True),
        (5, 5, 3, False),
        (4, 5, 3, True),
        (3, 5, 3, True),
        (2, 5, 3, False),
        (10, 12, 10, True),
        (65535, 3, 65534, True),
        (7, 7, 7, False),
        (100, 40, 20, False),
    ],
)
def test_an_event_is_due_when_its_entry_lies_between_old_and_new(
    event: int, new: int, old: int, expected: bool
) -> None:
    assert needs_event(event, new, old) is expected


@pytest.mark.parametrize("old", [0, 1, 65530, 65535])
def test_the_entry_published_last_is_always_in_the_window_and_the_next_one_never(old: int) -> None:
    for published in range(1, 20):
        new = (old + published) % 65536
        assert needs_event((new - 1) % 65536, new, old)
        assert not needs_event(new, new, old)


def test_nothing_published_means_nothing_due() -> None:
    assert not any(needs_event(event, 9, 9) for event in range(65536))
