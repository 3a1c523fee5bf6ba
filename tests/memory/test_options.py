"""Backends as option strings and as JSON: what is understood, what is refused in which words, and the way back."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhostuser.memory import (
    HostMemPolicy,
    MemoryBackend,
    MemoryBackendError,
    MemoryBackendFile,
    MemoryBackendMemfd,
    MemoryBackendRam,
    MemoryBackendShm,
    OnOffAuto,
    describe_properties,
    help_wanted,
    parse_object,
    parse_objects,
)
from vhostuser.memory.backends.options import TYPES
from vhostuser.memory.backends.properties import MAX_NODES, properties_of

DOCS = Path(__file__).parents[2] / "docs"
MIB = 1 << 20
EVERYTHING = MemoryBackendFile(
    id="m0",
    size=512 * MIB,
    share=True,
    prealloc=True,
    prealloc_threads=4,
    merge=True,
    dump=False,
    host_nodes=(0, 2, 3),
    policy=HostMemPolicy.BIND,
    mem_path="/x,y",
    align=2 * MIB,
    offset=4096,
    discard_data=True,
    pmem=True,
    readonly=True,
    rom=OnOffAuto.OFF,
)


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("memory-backend-shm,id=m0,size=64M", MemoryBackendShm(id="m0", size=64 * MIB)),
        ("memory-backend-ram,id=m0,size=4096", MemoryBackendRam(id="m0", size=4096)),
        ("memory-backend-ram,id=m0,size=1.5K,share=on", MemoryBackendRam(id="m0", size=1536, share=True)),
        ("qom-type=memory-backend-ram,id=m0,size=1M", MemoryBackendRam(id="m0", size=MIB)),
        ("size=1M,id=m0,qom-type=memory-backend-ram", MemoryBackendRam(id="m0", size=MIB)),
        ("--object memory-backend-ram,id=m0,size=1M", MemoryBackendRam(id="m0", size=MIB)),
        ("-object memory-backend-ram,id=m0,size=1M", MemoryBackendRam(id="m0", size=MIB)),
        ("--object=memory-backend-ram,id=m0,size=1M", MemoryBackendRam(id="m0", size=MIB)),
        (
            "memory-backend-memfd,id=m0,size=4M,seal=off,hugetlb=on,hugetlbsize=2M",
            MemoryBackendMemfd(id="m0", size=4 * MIB, seal=False, hugetlb=True, hugetlbsize=2 * MIB),
        ),
        (
            "memory-backend-file,id=m0,size=512M,mem-path=/x,share=on",
            MemoryBackendFile(id="m0", size=512 * MIB, mem_path="/x", share=True),
        ),
        (
            "memory-backend-file,id=m0,size=512M,mem-path=/x,,y,share=on,prealloc=on,prealloc-threads=4,merge=on,dump=off,"
            "host-nodes=0,host-nodes=2-3,policy=bind,align=2M,offset=4K,discard-data=on,pmem=on,readonly=on,rom=off",
            EVERYTHING,
        ),
    ],
)
def test_an_option_string_is_a_backend(text: str, backend: MemoryBackend) -> None:
    assert parse_object(text) == backend


def test_json_is_the_same_backend() -> None:
    text = """{"qom-type": "memory-backend-file", "id": "m0", "size": 536870912, "mem-path": "/x,y", "share": true,
        "prealloc": true, "prealloc-threads": 4, "merge": true, "dump": false, "host-nodes": [0, 2, 3],
        "policy": "bind", "align": 2097152, "offset": 4096, "discard-data": true, "pmem": true, "readonly": true,
        "rom": "off"}"""
    assert parse_object(text) == parse_object("--object " + text) == EVERYTHING


@pytest.mark.parametrize("word", ["on", "yes", "true", "y"])
@pytest.mark.parametrize("opposite", ["off", "no", "false", "n"])
def test_a_switch_has_four_words_for_each_position(word: str, opposite: str) -> None:
    assert parse_object(f"memory-backend-ram,id=m0,size=1M,share={word},dump={opposite}") == MemoryBackendRam(
        id="m0", size=MIB, share=True, dump=False
    )


@pytest.mark.parametrize(
    ("path", "written"),
    [(",", ",,"), ("a,b", "a,,b"), (",,", ",,,,"), ("a,", "a,,"), ("=", "="), ("a=b,c=d", "a=b,,c=d"), ("ü", "ü")],
)
def test_a_comma_in_a_value_is_doubled(path: str, written: str) -> None:
    backend = parse_object(f"memory-backend-file,id=m0,mem-path={written},size=1M")
    assert backend == MemoryBackendFile(id="m0", size=MIB, mem_path=path)
    assert backend.to_option() == f"memory-backend-file,id=m0,size=1M,mem-path={written}"


def test_defaults_are_left_out_of_what_is_written() -> None:
    assert MemoryBackendShm(id="ram", size=64 * MIB).to_option() == "memory-backend-shm,id=ram,size=64M"
    assert MemoryBackendShm(size=1, share=False).to_option() == "memory-backend-shm,id=mem0,size=1,share=off"


# --- what is refused --------------------------------------------------------------------------------------------------

RAM = "memory-backend-ram,id=m0,size=1M"
POLICIES = "one of default, preferred, bind, interleave"
NODES = "numbers below 128, like 0 or 0-3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "",
            "found object type '', expected one of "
            "memory-backend-file, memory-backend-memfd, memory-backend-ram, memory-backend-shm",
        ),
        (
            "memory-backend-epc,id=m0,size=1M",
            "found object type 'memory-backend-epc', expected one of "
            "memory-backend-file, memory-backend-memfd, memory-backend-ram, memory-backend-shm",
        ),
        (
            "id=m0,size=1M",
            "parameter 'qom-type' is missing: add one of "
            "memory-backend-file, memory-backend-memfd, memory-backend-ram, memory-backend-shm",
        ),
        (
            "memory-backend-ram,qom-type=memory-backend-shm,id=m0,size=1M",
            "parameter 'qom-type' is given 2 times: 'memory-backend-ram' and 'memory-backend-shm'",
        ),
        ("memory-backend-ram,size=1M", "memory-backend-ram: parameter 'id' is missing: add id=ram"),
        ("memory-backend-ram,id=m0", "memory-backend-ram: parameter 'size' is missing: add size=64M"),
        (
            "memory-backend-file,id=m0,size=1M",
            "memory-backend-file: parameter 'mem-path' is missing: add mem-path=/some/file",
        ),
        (
            f"{RAM},share",
            f"found 'share' in '{RAM},share', expected property=value, like share=on; a comma in a value is doubled",
        ),
        (f"{RAM},", f"found '' in '{RAM},', expected property=value, like share=on; a comma in a value is doubled"),
        (
            f"{RAM},size=2M",
            "property 'size' of memory-backend-ram is given 2 times: '1M' and '2M': leave only one",
        ),
        (
            "memory-backend-file,id=pc.ram,size=1M,mem-path=/a,mem-path=/b",
            "property 'mem-path' of memory-backend-file is given 2 times: '/a' and '/b': leave only one",
        ),
        (
            f"{RAM},sharee=on",
            "property 'memory-backend-ram.sharee' not found: did you mean 'share'?; "
            "memory-backend-ram,help lists what there is",
        ),
        (
            f"{RAM},mem-path=/x",
            "property 'memory-backend-ram.mem-path' not found: memory-backend-file has it; "
            "memory-backend-ram,help lists what there is",
        ),
        (
            f"{RAM},xyzzy=1",
            "property 'memory-backend-ram.xyzzy' not found: it has no such; "
            "memory-backend-ram,help lists what there is",
        ),
        (
            f"{RAM},prealloc-context=t0",
            "property 'prealloc-context' of memory-backend-ram is not supported: "
            "there are no thread-context objects here: use prealloc-threads",
        ),
        (f"{RAM},share=maybe", "property 'share' of memory-backend-ram expects 'on' or 'off': found 'maybe'"),
        (f"{RAM},share=ON", "property 'share' of memory-backend-ram expects 'on' or 'off': found 'ON'"),
        (f"{RAM},share=", "property 'share' of memory-backend-ram expects 'on' or 'off': found ''"),
        (
            "memory-backend-ram,id=m0,size=1X",
            "property 'size' of memory-backend-ram expects a size in bytes, like 64M: "
            "found size '1X', expected a number and a suffix out of B K M G T P E, like 64M",
        ),
        ("memory-backend-ram,id=m0,size=0", "property 'size' of memory-backend-ram doesn't take value '0'"),
        (
            f"{RAM},prealloc-threads=-1",
            "property 'prealloc-threads' of memory-backend-ram expects a number: found '-1'",
        ),
        (f"{RAM},prealloc-threads=٣", "property 'prealloc-threads' of memory-backend-ram expects a number: found '٣'"),
        (
            f"{RAM},policy=maybe",
            f"property 'policy' of memory-backend-ram expects {POLICIES}: found 'maybe'",
        ),
        (
            f"{RAM},host-nodes=3-1",
            f"property 'host-nodes' of memory-backend-ram expects {NODES}: found '3-1'",
        ),
        (
            f"{RAM},host-nodes=0-999999999999",
            f"property 'host-nodes' of memory-backend-ram expects {NODES}: found '0-999999999999'",
        ),
        (
            "memory-backend-ram,id=9,size=1M",
            "parameter 'id' of memory-backend-ram expects a letter, then letters, digits, '-', '.' or '_', found '9'",
        ),
        (f"{RAM}\0", f"found a NUL in {RAM + chr(0)!r}: no option and no path has one"),
    ],
)
def test_a_wrong_option_string_is_refused_with_what_to_write_instead(text: str, said: str) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        parse_object(text)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("properties", "name", "said"),
    [
        ('"size": "1M"', "size", "expects a size in bytes, like 64M: found '1M', expected a number"),
        ('"size": true', "size", "expects a size in bytes, like 64M: found True, expected a number"),
        ('"size": 1.5', "size", "expects a size in bytes, like 64M: found 1.5, expected a number"),
        ('"size": -1', "size", "doesn't take value '-1'"),
        ('"size": 1, "size": 2', "size", "is given 2 times: 1 and 2: leave only one"),
        ('"size": 1, "share": "on"', "share", "expects 'on' or 'off': found 'on', expected true or false"),
        ('"size": 1, "policy": 1', "policy", f"expects {POLICIES}: found 1, expected a string"),
        ('"size": 1, "policy": "x"', "policy", f"expects {POLICIES}: found 'x'"),
        ('"size": 1, "host-nodes": 0', "host-nodes", f"expects {NODES}: found 0, expected a list"),
        ('"size": 1, "host-nodes": [128]', "host-nodes", f"expects {NODES}: found '128'"),
    ],
)
def test_wrong_json_is_refused_with_what_is_expected(properties: str, name: str, said: str) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        parse_object(f'{{"qom-type": "memory-backend-ram", "id": "m0", {properties}}}')
    assert str(caught.value) == f"property '{name}' of memory-backend-ram {said}"


@pytest.mark.parametrize("text", ["{", "{}}", '{"qom-type": }', "{" * 100_000, '{"a": ' * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(MemoryBackendError, match=r"which is no JSON object: "):
        parse_object(text)


def test_a_type_that_is_no_text_is_refused() -> None:
    with pytest.raises(MemoryBackendError, match=r"found object type \[\], expected one of"):
        parse_object('{"qom-type": [], "id": "m0", "size": 1}')


def test_several_objects_have_ids_of_their_own() -> None:
    texts = ["memory-backend-ram,id=a,size=1M", "memory-backend-shm,id=b,size=2M"]
    assert list(parse_objects(texts)) == ["a", "b"]
    with pytest.raises(MemoryBackendError) as caught:
        parse_objects([*texts, "memory-backend-ram,id=b,size=3M"])
    assert str(caught.value) == (
        "id 'b' is given to two: memory-backend-shm,id=b,size=2M and memory-backend-ram,id=b,size=3M"
    )


# --- round trips ------------------------------------------------------------------------------------------------------

text_without_nul = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = {
    "bool": st.booleans(),
    "number": st.integers(1, 1 << 60),
    "size": st.integers(0, (1 << 64) - 1),
    "str": text_without_nul,
    "nodes": st.lists(st.integers(0, MAX_NODES - 1), max_size=5).map(tuple),
}
SPECIAL = {
    "size": st.integers(1, (1 << 64) - 1),
    "hugetlbsize": st.none() | st.integers(0, 63).map(lambda power: 1 << power),
    "reserve": st.just(True),
    "rom": st.sampled_from(OnOffAuto),
    "policy": st.sampled_from(HostMemPolicy),
}


@st.composite
def backends(draw: st.DrawFn) -> MemoryBackend:
    """Any backend that can be described, of any kind."""
    kind = draw(st.sampled_from(sorted(TYPES.values(), key=lambda each: each.type)))
    given: dict[str, Any] = {"id": draw(st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,10}", fullmatch=True))}
    for prop in properties_of(kind).values():
        if prop.required or draw(st.booleans()):
            given[prop.field] = draw(SPECIAL[prop.field] if prop.field in SPECIAL else VALUES[prop.kind.metavar])
    return kind(**given)


@given(backends())
def test_what_is_written_is_read_back(backend: MemoryBackend) -> None:
    assert parse_object(backend.to_option()) == backend


@given(backends())
def test_json_of_the_same_values_is_the_same_backend(backend: MemoryBackend) -> None:
    values = {name: getattr(backend, prop.field) for name, prop in properties_of(backend).items()}
    plain = {name: getattr(value, "value", value) for name, value in values.items() if value is not None}
    assert parse_object(json.dumps({"qom-type": backend.type, "id": backend.id, **plain})) == backend


@given(st.text(max_size=60) | st.text(',=-{}":memory-backend-ram,id=size1M', max_size=60))
def test_any_text_is_a_backend_or_an_error_of_ours(text: str) -> None:
    for prefix in ("", "memory-backend-file,id=a,size=1M,mem-path=/x,", '{"qom-type": "memory-backend-ram", '):
        with suppress(MemoryBackendError):
            assert isinstance(parse_object(prefix + text), MemoryBackend)


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["help", "--object help", "?"])
def test_help_lists_the_kinds(text: str) -> None:
    assert help_wanted(text) == "\n".join(["memory backends:", *(f"  {name}" for name in TYPES)])


@pytest.mark.parametrize("kind", TYPES.values())
def test_help_about_a_kind_has_every_property_once(kind: type[MemoryBackend]) -> None:
    text = help_wanted(f"{kind.type},help")
    assert text == describe_properties(kind)
    listed = re.findall(r"^  ([a-z-]+)=<", text, re.MULTILINE)
    assert listed == sorted(each.name.replace("_", "-") for each in fields(kind) if each.name != "id")


def test_help_says_kind_meaning_and_default() -> None:
    lines = describe_properties(MemoryBackendFile).splitlines()
    assert lines[0] == "memory-backend-file options:"
    assert (
        "  rom=<word>                 the guest sees ROM; auto: as readonly, one of on, off, auto (default: auto)"
        in lines
    )
    assert "  size=<size>                the guest sees exactly these bytes (required)" in lines


def test_no_help_is_wanted_by_an_ordinary_option() -> None:
    assert help_wanted(RAM) is None
    assert help_wanted("{}") is None


def test_help_about_what_there_is_not_is_refused() -> None:
    with pytest.raises(MemoryBackendError, match="found object type 'memory-backend-epc'"):
        help_wanted("memory-backend-epc,help")


# --- the documentation ------------------------------------------------------------------------------------------------

EXAMPLES = re.findall(r"^memory-backend-\S+$", (DOCS / "memory.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_of_the_documentation_is_understood(example: str) -> None:
    assert parse_object(example).to_option() == example


def test_the_documentation_has_examples() -> None:
    assert len(EXAMPLES) > 5
