"""Random damage to files, and random values that JSON and pickles can hold. Everything is drawn from a generator."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = (
    "", " ", "a", "cat", "../../up",
    "/etc/passwd", "a\0b", "猫 🐈‍⬛", "\ud800", "x" * 10_000, "a\nb", "{}", "{0}", "{0.__class__}",
    "%s%n", "<script>", "con", "NaN", "1e999", "embedding:nowhere", "((((", "))):1.2)", "\u202e", "a\u0301" * 50,
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 7, 64, 255, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308, math.nan,
    math.inf, -math.inf,
)  # fmt: skip


def value(rng: random.Random, depth: int = 3) -> Any:
    """Return anything that JSON can hold."""
    kind = rng.randrange(8 if depth else 5)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind < 4:
        return rng.choice(TEXTS)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind < 7:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {rng.choice(TEXTS): value(rng, depth - 1) for _ in range(rng.randrange(5))}


def changed(content: Any, rng: random.Random) -> Any:
    """Return nested data with a few values replaced, removed, repeated or renamed, somewhere inside."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(content))
        if not places:
            return value(rng)
        holder, key = rng.choice(places)
        way = rng.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif way == 2 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif way == 3:
            other, place = rng.choice(places)
            holder[key] = copy.deepcopy(
                other.get(place) if isinstance(other, dict) else other[min(place, len(other) - 1)]
            )
        elif way == 4 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            number = holder[key] if math.isfinite(holder[key]) else 1
            holder[key] = rng.choice((-number, number + 1, number * 1000, number / 3, str(number)))
        else:
            holder[key] = value(rng)
    return content


def _places(content: Any) -> Any:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, item in list(items):
        yield content, key
        yield from _places(item)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with some of them flipped, cut, repeated, moved or replaced; mostly near an end."""
    if not data:
        return rng.randbytes(20)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        length = len(changed)
        if not length:
            break
        at = rng.choice(
            (rng.randrange(length), rng.randrange(min(length, 400)), length - 1 - rng.randrange(min(length, 200)))
        )
        size = rng.choice((1, 1, 2, 8, 64, 1000))
        way = rng.randrange(6)
        if way == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del changed[at:]
        elif way == 2:
            del changed[at : at + size]
        elif way == 3:
            changed[at:at] = changed[at : at + size]
        elif way == 4:
            changed[at : at + size] = rng.randbytes(min(size, length - at))
        else:
            changed[at : at + size] = rng.choice((b"\0", b"\xff", b"9", b"[", b'"')) * min(size, length - at)
    return bytes(changed)


def damaged_json(path: Path, rng: random.Random) -> None:
    """Change a JSON file: its values mostly, else its bytes, or the depth of it."""
    text = path.read_bytes()
    way = rng.randrange(10)
    if way == 0:
        path.write_bytes(damaged(text, rng))
    elif way == 1:
        path.write_bytes(
            rng.choice((b"", b"null", b"[]", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{}", b"0" * 5000))
        )
    else:
        path.write_bytes(json.dumps(changed(json.loads(text), rng)).encode())


def damaged_safetensors(path: Path, rng: random.Random) -> None:
    """Change a safetensors file: its header's values, or its bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    way = rng.randrange(8)
    if way < 2:
        path.write_bytes(damaged(data[: 8 + length], rng) + body)
        return
    if way == 2:
        path.write_bytes(damaged(data, rng))
        return
    if way == 3:
        _reshape(header, rng)
    else:
        header = changed(header, rng)
    text = json.dumps(header).encode()
    stated = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 2**40, 2**63, len(text) + 8))
    path.write_bytes(stated.to_bytes(8, "little") + text + body)


def _reshape(header: dict[str, Any], rng: random.Random) -> None:
    """Give a tensor another shape, mostly one that goes with its bytes or with none."""
    name = rng.choice([name for name in header if name != "__metadata__"] or [""])
    if not name:
        return
    entry = header[name]
    numbers = math.prod(entry["shape"])
    big = rng.choice((10**5, 10**6, 10**9, 2**40))
    shapes = ([1, numbers], [numbers], [numbers, 1, 1], [big, 0], [0, big], [0], [], entry["shape"][::-1])
    entry["shape"] = rng.choice(shapes)
    if 0 in entry["shape"]:
        entry["data_offsets"] = [entry["data_offsets"][0]] * 2
    if rng.random() < 0.3:
        entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X", "I32"))


def damaged_archive(path: Path, rng: random.Random) -> None:
    """Change a file of PyTorch's: the bytes of its archive, or of the pickle in it, or how it is packed."""
    data = path.read_bytes()
    if not zipfile.is_zipfile(path) or rng.random() < 0.3:
        path.write_bytes(damaged(data, rng))
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    way = rng.randrange(4)
    pickled = [name for name in entries if name.endswith(".pkl")]
    name = rng.choice(pickled if pickled and rng.random() < 0.8 else list(entries))
    if way < 2:
        entries[name] = damaged(entries[name], rng)
    elif way == 2:
        del entries[name]
    packing = zipfile.ZIP_DEFLATED if way == 3 or rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", packing) as archive:
        for each, content in entries.items():
            archive.writestr(each, content)


def damage_of(path: Path) -> Callable[[Path, random.Random], None]:
    """Return what damages a file of this ending."""
    endings = {
        ".json": damaged_json,
        ".safetensors": damaged_safetensors,
        ".pt": damaged_archive,
        ".bin": damaged_archive,
    }
    return endings.get(path.suffix, lambda path, rng: path.write_bytes(damaged(path.read_bytes(), rng)))
