"""``vhost-user probe``: what any vhost-user back-end offers, asked without setting anything up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from frontend.commands.options import json_option
from frontend.commands.outcome import Failed, NoBackend

if TYPE_CHECKING:
    from frontend.commands.running import Patience
    from frontend.probe import Report

    _NumberType = click.ParamType[int]
else:
    _NumberType = click.ParamType  # click 8.1 has it, and cannot be subscripted

EPILOG = """\b
Exit status:
  0    done
  1    --diff: something differs
  2    called wrongly, or --diff of a file that is no report
  3    no back-end: cannot connect, or it stopped answering
  130  interrupted"""
MOST_CONFIG = 256


class DeviceTypeName(_NumberType):
    """A device type by its name in the standard, or ``blk``; becomes its number."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        # Only when a type is given: the help has to come at once.
        from frontend.probe.report import type_name
        from vhostuser.wire.virtio.ids import DeviceType

        if isinstance(value, int):
            return value
        types = {type_name(each): int(each) for each in DeviceType} | {"block": int(DeviceType.BLOCK)}
        if value.isdecimal():
            return int(value)
        if value.lower() not in types:
            self.fail(f"found {value}, expected a number or one of {', '.join(sorted(types))}", param, ctx)
        return types[value.lower()]


@click.command(epilog=EPILOG)
@click.argument("socket", type=click.Path())
@click.option("--type", "device_type", type=DeviceTypeName(), help="What it is: blk, net, fs, ...  [default: a guess]")
@click.option(
    "--config-size",
    type=click.IntRange(1, MOST_CONFIG),
    metavar="BYTES",
    help="Ask for this much configuration space.  [default: what the features tell of]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up when an answer takes longer than this.",
)
@json_option
@click.option(
    "--diff",
    "old",
    type=click.File(),
    metavar="OLD.JSON",
    help="Show only what is not as it was when --json wrote this file.",
)
def probe(
    socket: str, device_type: int | None, config_size: int | None, timeout: float, as_json: bool, old: Any
) -> None:
    """Show what the back-end at SOCKET offers, and what is odd about it.

    It is only asked: no memory is shared, no ring is set up, no feature of the device is acknowledged.  A back-end
    that ends with its front-end, as virtiofsd does, ends after this too.

    \b
    Examples:
      vhost-user probe disk.sock
      vhost-user probe --json disk.sock > old.json
      vhost-user probe --diff old.json disk.sock
    """
    from frontend.probe import differences

    before = _report_in(old) if old else None
    report = ask(socket, device_type, config_size, timeout)
    found = {"socket_path": socket, **report.to_json()}
    changes = differences(before, found) if old else None
    if as_json:
        more = {} if changes is None else {"differences": [each.to_json() for each in changes]}
        click.echo(json.dumps({**found, **more}, indent=2))
    elif changes is not None:
        for each in changes:
            click.echo(str(each))
    else:
        from frontend.commands.probe_show import show

        show(report, socket)
    if report.ended:
        raise NoBackend(f"the back-end at {socket} was not asked everything: {report.ended}")
    if changes:
        raise Failed(f"{len(changes)} difference{'s' if len(changes) > 1 else ''} to {old.name}")


def ask(socket_path: str, device_type: int | None, config_size: int | None, timeout: float) -> Report:
    """What the back-end says.

    Raises:
        click.ClickException: there is none, or it says nothing.
    """
    from frontend.commands.running import connect_to, run
    from frontend.probe import NoAnswer
    from frontend.probe import probe as interview
    from vhostuser.wire.virtio.features import DEVICE_FEATURES

    async def action(patience: Patience) -> Report:
        names = DEVICE_FEATURES.get(device_type) if device_type is not None else None
        channel = await connect_to(socket_path, timeout, feature_names=names)
        try:
            with patience.suspended():  # each answer has its own time
                return await interview(channel, device_type=device_type, config_size=config_size, patience=timeout)
        except NoAnswer as error:
            raise NoBackend(
                f"the back-end at {socket_path} does not answer: {error}; does it serve another front-end?  "
                f"is it a vhost-user back-end at all?"
            ) from error

    hint = "does it serve another front-end?  --timeout waits longer"
    return run(action, timeout=timeout, backend=f"the back-end at {socket_path}", hint=hint)


def _report_in(file: Any) -> Any:
    """What --json has written; looked at before anybody is asked, for some back-ends can be asked only once."""
    from frontend.probe import NotAReport, differences

    try:
        before = json.load(file)
        differences(before, before)
    except (ValueError, NotAReport) as error:
        raise click.UsageError(f"--diff {file.name}: {error}") from None
    return before
