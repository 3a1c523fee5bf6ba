"""The house stands because imports only go down: this is the plan of docs/architecture.md, read by a machine.

Each room has a floor and says what it may import: a package or module by name, or a number, "anything on that floor
or below".  A module may always import its own room.  A new package gets a line here before it gets a module.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS: dict[str, tuple[int, tuple[int | str, ...]]] = {
    "vhostuser": (-1, ()),
    "vhostuser.errors": (0, ()),
    "vhostuser.wire": (1, (0,)),
    "vhostuser.fd": (1, (0,)),
    "vhostuser.protocol": (2, (1,)),
    "vhostuser.memory": (2, (1,)),
    "vhostuser.virtqueue": (3, (0, "vhostuser.wire", "vhostuser.memory")),
    "vhostuser.transport": (3, (1, "vhostuser.protocol.framing")),
    "vhostuser.device": (4, (0, "vhostuser.wire", "vhostuser.virtqueue")),
    "vhostuser.backend": (5, (4,)),
    "vhostuser.devices": (5, (1, "vhostuser.virtqueue", "vhostuser.device", "vhostuser.memory.guard")),
    "vhostuser.trace": (5, (3,)),
    "vhostuser.testing": (5, (4,)),
    "vhostuser.conformance": (6, (4,)),
    "vhostuser.cli": (7, (6,)),
    "vhostuser.__main__": (8, (7,)),
    # Inside frontend a lower floor may always be imported: here stands what may be taken from vhostuser.
    "frontend.background": (9, ()),
    "frontend.connection": (10, (3,)),
    "frontend.guest": (10, (2,)),
    "frontend.listener": (10, (3,)),
    "frontend.probe": (10, (3,)),
    "frontend.doctor": (11, (3,)),
    "frontend.queue": (11, (3,)),
    "frontend.bringup": (12, (3,)),
    "frontend.state": (13, (3,)),
    "frontend.drivers": (13, (0, "vhostuser.wire", "vhostuser.memory.map.GuestAddr")),
    "frontend": (14, (3,)),
    "frontend.conformance": (15, (4, "vhostuser.conformance", "vhostuser.trace")),
    "frontend.commands": (16, (7,)),
}
BELOW_TRIO = {f"vhostuser.{room}" for room in ("errors", "wire", "fd", "protocol", "memory", "virtqueue")}
THE_OTHER_SIDE = ("vhostuser.backend", "vhostuser.devices")
COMMAND_LINE = {"vhostuser.cli", "frontend.commands"}
OUTSIDE = {  # run-time dependencies that have one home; trio has a test of its own
    "construct": {"vhostuser.wire"},
    "posix_ipc": {"vhostuser.memory"},
    "click": COMMAND_LINE,
    "rich": COMMAND_LINE,
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for top in ("vhostuser", "frontend") for path in sorted(ROOT.glob(f"{top}/**/*.py"))}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def room_of(name: str) -> str:
    """The longest listed prefix; the two top packages own only their ``__init__.py``."""
    return max((room for room in FLOORS if within(name, room)), key=len, default="")


def imports(name: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """Every dotted name that a module imports, wherever in the file it does."""
    package = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def broken_rules(name: str, source: str, *, is_package: bool = False) -> list[str]:
    room = room_of(name)
    floor, allowed = FLOORS[room]
    wrong = []
    for imported in imports(name, source, is_package=is_package):
        top, target = imported.partition(".")[0], room_of(imported)
        if target and target != room:
            below = FLOORS[target][0] <= max((n for n in allowed if isinstance(n, int)), default=-1)
            named = any(within(imported, package) for package in allowed if isinstance(package, str))
            both_frontend = within(name, "frontend") and within(imported, "frontend")
            if not (below or named or both_frontend) or FLOORS[target][0] >= floor:
                wrong.append(f"{name}, floor {floor}, imports {imported}, floor {FLOORS[target][0]}")
            if within(name, "frontend") and target in THE_OTHER_SIDE:
                wrong.append(f"{name} imports {imported}: a frontend meets a backend only through a socket")
        if room not in OUTSIDE.get(top, {room}):
            wrong.append(f"{name} imports {top}, whose home is {sorted(OUTSIDE[top])}")
        if top == "trio" and room in BELOW_TRIO:
            wrong.append(f"{name} imports trio, which begins with vhostuser.transport")
    return wrong


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_stands_below_it(name: str) -> None:
    path = MODULES[name]
    room = room_of(name)
    assert room != "frontend" or name == "frontend", f"{name} has no floor: give it a line in FLOORS"
    assert room != "vhostuser" or name == "vhostuser", f"{name} has no floor: give it a line in FLOORS"
    assert broken_rules(name, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py") == []


def test_a_room_never_lists_its_own_floor_or_a_higher_one() -> None:
    for room, (floor, allowed) in FLOORS.items():
        for entry in allowed:
            reached = entry if isinstance(entry, int) else FLOORS[room_of(entry)][0]
            assert reached < floor, f"{room}, floor {floor}, allows {entry}, floor {reached}"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("vhostuser.wire.x", "from vhostuser.memory import map"),
        ("vhostuser.memory.x", "from vhostuser.protocol.framing import Frame"),
        ("vhostuser.memory.x", "from ..protocol import framing"),
        ("vhostuser.transport.x", "from vhostuser.protocol.state import ProtocolState"),
        ("vhostuser.virtqueue.x", "def later() -> None:\n    import trio"),
        ("vhostuser.virtqueue.x", "from vhostuser.fd import Fd"),
        ("vhostuser.protocol.x", "import construct"),
        ("vhostuser.devices.x", "from vhostuser import backend"),
        ("vhostuser.cli.x", "import frontend"),
        ("frontend.commands.x", "from vhostuser.backend.server import serve"),
        ("frontend.drivers.x", "from frontend import open_device"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_named(name: str, source: str) -> None:
    assert broken_rules(name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("vhostuser.wire.x", "import construct\nfrom .schema import u8\nfrom vhostuser.errors import VhostUserError"),
        ("vhostuser.transport.x", "import trio\nfrom vhostuser.protocol.framing import Frame"),
        ("vhostuser.cli.x", "import click\nfrom vhostuser.backend import serve\nfrom vhostuser import __version__"),
        ("frontend.commands.x", "import rich\nfrom frontend import open_device\nfrom vhostuser.cli import output"),
    ],
)
def test_an_import_that_goes_down_is_allowed(name: str, source: str) -> None:
    assert broken_rules(name, source) == []
