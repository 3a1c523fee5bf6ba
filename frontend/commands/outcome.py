"""How a command ends: its exit status, and one line that says what to do next."""

from __future__ import annotations

from enum import IntEnum

import click

EPILOG = """\b
Exit status:
  0    done
  1    data differs, or the device or a file reported an error
  2    called wrongly
  3    no back-end: cannot connect, it refused a step, or it went away
  130  interrupted"""


class ExitStatus(IntEnum):
    """What a shell sees; `EPILOG` tells people."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_BACKEND = 3
    INTERRUPTED = 130


class Failed(click.ClickException):
    """The work could not be done, or its result is wrong."""

    exit_code = ExitStatus.FAILED


class NoBackend(click.ClickException):
    """There is no back-end to work with, or none any more."""

    exit_code = ExitStatus.NO_BACKEND


class Interrupted(click.ClickException):
    """Somebody pressed Ctrl-C."""

    exit_code = ExitStatus.INTERRUPTED

    def __init__(self) -> None:
        super().__init__("interrupted")
