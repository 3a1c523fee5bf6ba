"""Descriptors with one owner."""

from __future__ import annotations

import os

import pytest

from vhostuser.fd import NO_FDS, ClosedFd, Fd, Fds


def opened() -> Fd:
    return Fd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_leaving_the_with_block_closes() -> None:
    with opened() as fd:
        number = fd.fileno()
        assert is_open(number)
        assert repr(fd) == f"<Fd {number}>"
    assert fd.closed
    assert not is_open(number)
    assert repr(fd) == "<Fd closed>"


def test_closing_twice_closes_nobody_elses_descriptor() -> None:
    fd = opened()
    fd.close()
    with opened():  # the kernel gives the number away again
        fd.close()


def test_a_closed_holder_has_no_number() -> None:
    fd = opened()
    fd.close()
    for use in (fd.fileno, fd.take, fd.move, fd.duplicate):
        with pytest.raises(ClosedFd, match="closed or handed over"):
            use()


def test_taking_leaves_the_holder_empty_and_the_descriptor_open() -> None:
    fd = opened()
    number = fd.take()
    assert fd.closed
    assert is_open(number)
    os.close(number)


def test_moving_changes_the_owner_and_not_the_number() -> None:
    fd = opened()
    number = fd.fileno()
    with fd.move() as owner:
        assert fd.closed
        assert owner.fileno() == number


def test_a_duplicate_is_the_same_file_by_another_number_and_not_inherited() -> None:
    with opened() as fd, fd.duplicate() as copy:
        assert copy.fileno() != fd.fileno()
        assert os.path.samestat(os.fstat(copy.fileno()), os.fstat(fd.fileno()))
        assert not os.get_inheritable(copy.fileno())


@pytest.mark.parametrize("number", [-1, -100])
def test_a_negative_number_is_no_descriptor(number: int) -> None:
    with pytest.raises(ValueError, match=f"not a file descriptor: {number}"):
        Fd(number)


def test_a_holder_that_is_forgotten_warns_and_closes() -> None:
    fd = opened()
    number = fd.fileno()
    with pytest.warns(ResourceWarning, match=f"<Fd {number}> was never closed"):
        del fd  # reference counting: gone at once
    assert not is_open(number)


def test_a_bundle_owns_raw_numbers_that_it_adopts() -> None:
    numbers = list(os.pipe())
    with Fds.adopt(numbers) as fds:
        assert fds.numbers() == numbers
    assert not any(is_open(number) for number in numbers)


def test_a_bundle_closes_only_what_nobody_took() -> None:
    fds = Fds.of(opened(), opened())
    with fds[0].move() as wanted:
        fds.close()
        assert is_open(wanted.fileno())
        assert fds[1].closed


def test_taking_all_empties_the_bundle() -> None:
    fds = Fds.of(opened(), opened())
    numbers = fds.numbers()
    with fds.take_all() as taken:
        assert taken.numbers() == numbers
        assert all(fd.closed for fd in fds)
        with pytest.raises(ClosedFd):
            fds.numbers()


def test_a_bundle_duplicates_all_of_it() -> None:
    with Fds.of(opened(), opened()) as fds, fds.duplicate() as copies:
        assert len(copies) == 2
        assert not set(copies.numbers()) & set(fds.numbers())


def test_when_one_cannot_be_duplicated_the_copies_made_so_far_are_closed() -> None:
    first, second = opened(), opened()
    second.close()
    before = len(os.listdir("/dev/fd"))
    with first, pytest.raises(ClosedFd):
        Fds.of(first, second).duplicate()
    assert len(os.listdir("/dev/fd")) == before - 1


def test_no_fds_is_an_empty_bundle_that_can_be_closed_any_time() -> None:
    NO_FDS.close()
    assert len(NO_FDS) == 0
    assert NO_FDS.take_all().numbers() == []
