"""``vhost-user doctor``: what this machine has for vhost-user, and what would help."""

from __future__ import annotations

import json

import click

from frontend.commands.options import json_option
from frontend.commands.outcome import ExitStatus

EPILOG = """\b
Exit status:
  0    everything works; hints say what would do more, or do it faster
  1    something is broken, and says what to do about it"""


@click.command(epilog=EPILOG, short_help="Look at this machine: what works, what is missing.")
@json_option
def doctor(as_json: bool) -> None:
    """Look at this machine: which engine serves rings and why, which kinds of memory and of notifiers work, limits,
    programs to work with, and versions.

    Nothing is changed.  A line that is not "ok" comes with the next step.
    """
    from frontend.doctor import Level, examine

    findings = list(examine())
    broken = any(finding.level is Level.BROKEN for finding in findings)
    if as_json:
        told = {"healthy": not broken, "findings": [finding.to_json() for finding in findings]}
        click.echo(json.dumps(told, indent=2))
    else:
        from frontend.commands.doctor_show import show

        show(findings)
    click.get_current_context().exit(ExitStatus.FAILED if broken else ExitStatus.OK)
