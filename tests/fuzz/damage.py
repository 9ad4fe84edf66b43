"""Ways to damage a file, each a function (random.Random, bytes) -> bytes."""

import json
import random
import struct
from collections.abc import Callable

ODD_NUMBERS = (0, -1, 1, 2**31, 2**63, 2**70, 1e308, -1e400, float("nan"), 0.5, 10**20)
ODD_TEXT = ("", " ", "x", "\x00", "\x1b[31mred", "\u202egnp.exe", "../outside/passwd", "a" * 3000, "é" * 40, "\ud800",
            "/vsicurl/http://127.0.0.1:9/x.tif", "NaN", "!!python/object:os.system", "%s%n", "'; --")  # fmt: skip
ODD_VALUES = (None, True, False, [], {}, [[]], [1, 2], {"size": 3}, *ODD_NUMBERS, *ODD_TEXT)


def in_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes set, removed, inserted or cut off, mostly near the beginning, where headers stand."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        size = len(changed)
        place = min(int(rng.expovariate(1 / 200)), size - 1) if rng.random() < 0.6 else rng.randrange(size)
        kind = rng.random()
        if kind < 0.5:
            changed[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif kind < 0.6:
            wide = struct.pack(rng.choice(["<I", ">I"]), rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
            changed[place : place + 4] = wide
        elif kind < 0.8:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind < 0.9:
            changed[place:place] = rng.randbytes(rng.randrange(1, 8))
        else:
            del changed[place:]
        changed = changed or bytearray(b"x")
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    """The file ends too early, as after a full disk or a broken download."""
    return data[: rng.randrange(len(data))]


def in_text(rng: random.Random, data: bytes) -> bytes:
    """Lines doubled, removed or swapped, words and numbers replaced: for YAML, lists and GeoJSON."""
    lines = data.decode(errors="replace").split("\n")
    for _ in range(rng.choice([1, 1, 2])):
        place = rng.randrange(len(lines))
        kind = rng.random()
        if kind < 0.2:
            lines.insert(place, lines[rng.randrange(len(lines))])
        elif kind < 0.4 and len(lines) > 1:
            del lines[place]
        else:
            words = lines[place].split(" ")
            words[rng.randrange(len(words))] = str(rng.choice(ODD_VALUES))
            lines[place] = " ".join(words)
    return "\n".join(lines).encode(errors="surrogatepass")


def in_json(rng: random.Random, data: bytes) -> bytes:
    """One value replaced by one that does not belong there, or left out, or the text damaged."""
    if rng.random() < 0.15:
        return in_text(rng, data)
    return json.dumps(_in_value(rng, json.loads(data))).encode()


def _in_value(rng: random.Random, value: object) -> object:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or rng.random() < 0.15:
        return rng.choice(ODD_VALUES)
    key = rng.choice(keys)
    if isinstance(value, dict):
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: _in_value(rng, value[key])}
    if rng.random() < 0.1:
        return value[:key] + value[key + 1 :]
    return [_in_value(rng, part) if i == key else part for i, part in enumerate(value)]


def in_recipe(rng: random.Random, data: bytes) -> bytes:
    """The recipe in the header of a model file, its length kept true; its weights stay as they are."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    recipe = header["__metadata__"]["torchfpn"].encode()  # without the digests, which would tell the change
    header["__metadata__"] = {"torchfpn": in_json(rng, recipe).decode(errors="replace")}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


Damage = Callable[[random.Random, bytes], bytes]
