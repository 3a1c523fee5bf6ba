"""What `vhost-user` does before it does anything."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import frontend
from tests.cli.programs import surroundings, vhost_user
from vhostuser import __version__, cli

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAVY = {"trio", "construct", "rich", "posix_ipc", "vhostuser.wire", "frontend.bringup"}
LIST_MODULES = """
import sys
from vhostuser.cli import command
command(sys.argv[1:], standalone_mode=False)
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["blk", "--help"],
        ["blk", "verify", "--help"],
        ["rng", "read", "-h"],
        ["demo", "-h"],
        ["backend", "-h"],
        ["probe", "-h"],
        ["conform", "-h"],
        ["conform", "backend", "-h"],
        ["doctor", "-h"],
    ],
)
def test_help_imports_nothing_heavy(arguments: Sequence[str]) -> None:
    """Help is what people ask for first; trio, construct and rich cost them a third of a second."""
    ran = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *arguments],
        capture_output=True,
        text=True,
        timeout=25,
        env=surroundings(),
        check=True,
    )
    assert "Usage:" in ran.stdout
    assert HEAVY.isdisjoint(ran.stderr.split())


def test_help_names_every_command() -> None:
    shown = vhost_user("--help")
    assert shown.returncode == 0
    for name in ("backend", "blk", "demo", "probe", "rng"):
        assert f"\n  {name} " in shown.stdout.decode()


def test_version_is_the_packages() -> None:
    assert vhost_user("--version").stdout.decode() == f"vhost-user, version {__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    ran = vhost_user("frobnicate")
    assert (ran.returncode, b"No such command 'frobnicate'" in ran.stderr) == (2, True)


def test_an_unknown_log_level_is_a_usage_error() -> None:
    ran = vhost_user("rng", "read", env={"VHOST_USER_LOG": "loud"})
    assert ran.returncode == 2
    assert b"VHOST_USER_LOG=loud: expected debug, info, warning or error" in ran.stderr


def test_without_an_installed_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(**_: str) -> list[EntryPoint]:
        return []

    monkeypatch.setattr(cli, "entry_points", nothing)
    result = CliRunner().invoke(cli.command, ["demo"])
    assert (result.exit_code, "pip install -e ." in result.output) == (2, True)


def test_a_plug_in_that_is_no_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(**_: str) -> list[EntryPoint]:
        return [EntryPoint("wrong", "vhostuser:__version__", cli.GROUP)]

    monkeypatch.setattr(cli, "entry_points", one)
    result = CliRunner().invoke(cli.command, ["wrong"])
    assert result.exit_code == 1
    assert "vhostuser:__version__, which calls itself wrong, is not a click command" in result.output


def test_each_command_is_a_click_command() -> None:
    context = click.Context(cli.command)
    commands = cli.command
    assert isinstance(commands, click.Group)
    assert all(commands.get_command(context, name) for name in commands.list_commands(context))


@pytest.mark.parametrize("name", frontend.__all__)
def test_each_name_of_frontend_is_there_when_it_is_used(name: str) -> None:
    assert getattr(frontend, name) is getattr(import_module(getattr(frontend, name).__module__), name)
    assert name in dir(frontend)


def test_a_name_that_frontend_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'frontend' has no attribute 'Backend'"):
        getattr(frontend, "Backend")  # noqa: B009 -- mypy knows that it is not there
