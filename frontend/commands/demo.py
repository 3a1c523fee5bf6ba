"""``vhost-user demo``: two processes, memory that has no name, a virtqueue, and a real file that goes through it."""

from __future__ import annotations

import json
import os
import sys

import click

from frontend.commands.options import MIB, json_option, memory_option, notifier_option
from frontend.commands.outcome import EPILOG, Failed
from vhostuser.cli.parameters import SizeType

DEFAULT_SIZE = 64 * MIB
SMALLEST_SIZE = 4 * MIB
TIMEOUT = 20.0


@click.command(epilog=EPILOG, short_help="The whole story: two processes, one memory, one file.")
@memory_option
@notifier_option
@click.option(
    "--size",
    type=SizeType(least=SMALLEST_SIZE, unit=MIB),
    help="Of the disk, and of guest memory.  [default: 64M, or what the file needs]",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False),
    help="What to copy.  [default: the Python interpreter that runs this, or its library if that is larger]",
)
@click.option(
    "--kvm",
    is_flag=True,
    help="Another story: a guest on a real CPU writes to its ROM, and rings the back-end by itself.",
)
@json_option
def demo(memory: str, notifier: str | None, size: int | None, file: str | None, kvm: bool, as_json: bool) -> None:
    """The whole story: share memory with a back-end process and move a real file through a virtqueue.

    Starts a back-end, makes shared memory and hands it over by its descriptor, shows that both processes have the same
    object, copies the file to the disk there, reads it back and compares.  Takes about two seconds and leaves
    nothing behind.
    """
    if kvm:
        from frontend.commands.kvm_demo import kvm_demo

        kvm_demo(memory, notifier, size, file, as_json=as_json)
        return
    from frontend.commands.demo_play import Scene, play
    from frontend.commands.demo_story import Story
    from frontend.commands.options import memory_backend, notifier_kind
    from frontend.commands.running import run

    path = file or _interpreter()
    room = _room(path, size)
    scene = Scene(
        memory=memory_backend(memory, room),
        memory_kind=memory,
        notifier=notifier_kind(notifier),
        file=path,
        size=room,
    )
    story = Story(silent=as_json)
    story.begin("A disk in another process, and memory that both processes share")
    run(lambda patience: play(scene, story, patience), timeout=TIMEOUT, backend="the demo's back-end")
    if as_json:
        click.echo(json.dumps({"ok": not story.problems, "problems": story.problems, **story.facts}, indent=2))
    else:
        story.end("Not as it should be." if story.problems else "All is as it should be.")
    if story.problems:
        raise Failed("; ".join(story.problems))


def _interpreter() -> str:
    """The file that Python is: often the program that runs is a few kilobytes, and all the rest is in a library."""
    import sysconfig

    library = sysconfig.get_config_var("INSTSONAME")
    candidates = [sys.executable]
    if library:
        candidates.append(os.path.join(sysconfig.get_config_var("LIBDIR") or "", library))
    return max(filter(os.path.isfile, map(os.path.realpath, candidates)), key=os.path.getsize)


def _room(path: str, size: int | None) -> int:
    """Bytes of the disk; the file has to fit."""
    needed = os.path.getsize(path)
    if size is None:
        return max(DEFAULT_SIZE, -(-needed // MIB) * MIB)
    if needed > size:
        raise click.UsageError(f"{path} has {needed} bytes, the disk {size}: give a larger --size")
    return size
