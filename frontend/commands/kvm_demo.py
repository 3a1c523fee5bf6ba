"""``vhost-user demo --kvm``: a guest of a few instructions, its memory slots, and a back-end that it rings itself."""

from __future__ import annotations

import json

import click

from frontend.commands.outcome import Failed

TIMEOUT = 20.0


def kvm_demo(memory: str, notifier: str | None, size: int | None, file: str | None, *, as_json: bool) -> None:
    """Tell that story, on KVM if there is one, else with slots and a guest in Python.

    Raises:
        Failed: something is not as it should be.
    """
    if size is not None or file is not None:
        raise click.UsageError("--kvm copies no file: leave --size and --file out")
    from frontend.commands.demo_story import Story
    from frontend.commands.kvm_play import GuestScene, play
    from frontend.commands.options import MIB, memory_backend, notifier_kind
    from frontend.commands.running import run

    scene = GuestScene.of(memory_backend(memory, MIB), notifier_kind(notifier))
    story = Story(silent=as_json)
    story.begin("A guest that writes to its ROM, and rings a back-end by itself")
    run(lambda patience: play(scene, story, patience), timeout=TIMEOUT, backend="the demo's back-end")
    if as_json:
        click.echo(json.dumps({"ok": not story.problems, "problems": story.problems, **story.facts}, indent=2))
    else:
        story.end("Not as it should be." if story.problems else "All is as it should be.")
    if story.problems:
        raise Failed("; ".join(story.problems))
