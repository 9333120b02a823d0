"""Ways to damage files: bytes, values of JSON, and pieces of chat templates. Each is decided by a random generator."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

ABSURD = (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
Mutation = Callable[[bytearray, random.Random, int], bytearray]


def flip_bits(data: bytearray, rng: random.Random, head: int) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(head)] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, rng: random.Random, head: int) -> bytearray:
    return data[: rng.randrange(rng.choice((head, len(data))))]


def plant_long(data: bytearray, rng: random.Random, head: int) -> bytearray:
    at = rng.choice((8, 16, rng.randrange(max(1, head - 8)), rng.randrange(max(1, head - 8))))
    data[at : at + 8] = struct.pack("<Q", rng.choice(ABSURD) ^ rng.choice((0, 0, rng.randrange(256))))
    return data


def plant_length(data: bytearray, rng: random.Random, head: int) -> bytearray:
    """Put an absurd number where a small one is: such places are lengths, counts, sizes and types."""
    for _ in range(200):
        at = rng.randrange(max(1, head - 8))
        if 0 < int.from_bytes(data[at : at + 8], "little") < 1000:
            data[at : at + 8] = struct.pack("<Q", rng.choice(ABSURD))
            break
    return data


def plant_int(data: bytearray, rng: random.Random, head: int) -> bytearray:
    at = rng.randrange(max(1, head - 4))
    data[at : at + 4] = struct.pack("<I", rng.choice(ABSURD) & 0xFFFFFFFF)
    return data


def splice(data: bytearray, rng: random.Random, head: int) -> bytearray:
    start, length, to = rng.randrange(head), rng.randrange(1, 64), rng.randrange(head)
    piece = data[start : start + length]
    if rng.random() < 0.5:
        data[to : to + len(piece)] = piece
    else:
        data[to:to] = piece
    return data


def delete(data: bytearray, rng: random.Random, head: int) -> bytearray:
    at = rng.randrange(head)
    del data[at : at + rng.randrange(1, 40)]
    return data


def noise(data: bytearray, rng: random.Random, head: int) -> bytearray:
    at = rng.randrange(head)
    fresh = rng.randbytes(rng.randrange(1, 24))
    data[at : at + len(fresh)] = fresh
    return data


def digits(data: bytearray, rng: random.Random, head: int) -> bytearray:
    """Replace one number of a JSON header, keeping its length field right."""
    places = [i for i in range(8, head) if chr(data[i]).isdigit()]
    if not places:
        return data
    at = rng.choice(places)
    number = str(rng.choice((*ABSURD, -1, 3, 10**30))).encode()
    length = int.from_bytes(data[:8], "little") + len(number) - 1
    data[at : at + 1] = number
    data[:8] = struct.pack("<Q", max(0, length))
    return data


def swap_case(data: bytearray, rng: random.Random, head: int) -> bytearray:
    at = rng.randrange(head)
    data[at] = rng.choice(b'{}[]":,0123456789FBIU_ \\\x00')
    return data


GGUF_MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits,
    truncate,
    plant_long,
    plant_length,
    plant_length,
    plant_int,
    splice,
    delete,
    noise,
)
SAFETENSORS_MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits,
    truncate,
    plant_long,
    digits,
    digits,
    swap_case,
    splice,
    delete,
    noise,
)

# What a value of a JSON file may become: of another type, out of all bounds, nested, or long.
JUNK: tuple[Any, ...] = (
    *(-1, 0, 1, 7, 2**31, 2**63, 10**30, 10**400, -(10**400), 1e308, float("nan"), float("inf"), -0.5, True, None),
    *(
        "",
        "x",
        "a" * 5000,
        "9" * 5000,
        "/dev/zero",
        "\0",
        "\ud800",
        "(a|a|aa)+$",
        "someone/code",
        [],
        {},
        [[1]],
        {"a": 1},
    ),
    *(
        [1] * 300,
        {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 9},
    ),
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here] if here else []
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:60]:
        found += places(inner, (*here, key))
    return found


def damaged(value: Any, rng: random.Random) -> str:
    """Return a JSON text in which some values are junk."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        *way, last = rng.choice(places(value))
        inner = value
        for step in way:
            inner = inner[step]
        if rng.random() < 0.15 and isinstance(inner, dict):
            del inner[last]
        else:
            inner[last] = copy.deepcopy(rng.choice(JUNK))
        if not places(value):
            break
    return json.dumps(value)


TEMPLATE_BITS = (
    *(
        "{{ messages }}",
        "{{ messages|tojson }}",
        "{{ '%9999d' % 1 }}",
        "{{ '%(a)999d' * 900 % {'a': 1} }}",
        "{{ ns.a }}",
    ),
    *("{% set ns = namespace(a=[1], b=(1,)) %}", "{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}"),
    *("{% for i in range(40) %}{% set ns.b = (ns.b, ns.b) %}{% endfor %}", "{{ ns.a == ns.a }}", "{{ {ns.b: 1} }}"),
    *("{% if ns.a in [ns.b, ns.a] %}x{% endif %}", "{{ [ns.a, ns.b]|sort }}", "{{ 'a'.encode('punycode') }}"),
    *("{{ range(9999)|list|tojson(separators=('x' * 99999, ':')) }}", "{{ messages|sort(attribute='content') }}"),
    *("{{ [1]|select('eq', ns.a)|list }}", "{{ 'ab' * 900000 }}", "{% for m in messages %}{{ m.content }}{% endfor %}"),
    *(
        "{{ loop }}",
        "{{ {}[ns.b] }}",
        "{{ undefined.a }}",
        "{{ 1/0 }}",
        "{{ '{0:{1}}'.format(1, 9) }}",
        "{%",
        "%}",
        "{{",
    ),
)


def damaged_text(data: bytes, rng: random.Random, marks: Sequence[bytes]) -> bytes:
    """Damage a text file: bytes go, come twice, or give way to marks of its syntax and to what is no text."""
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.randrange(len(mutant) + 1)
        match rng.randrange(6):
            case 0:
                del mutant[at : at + rng.choice((1, 1, 5, 60))]
            case 1:
                piece = mutant[at : at + rng.randrange(1, 80)]
                to = rng.randrange(len(mutant) + 1)
                mutant[to:to] = piece * rng.choice((1, 1, 3, 50))
            case 2:
                mutant[at : at + 1] = rng.randbytes(rng.randrange(1, 6))
            case 3:
                del mutant[at:]
            case _:
                mutant[at : at + rng.choice((0, 1))] = rng.choice(marks)
    return bytes(mutant)
