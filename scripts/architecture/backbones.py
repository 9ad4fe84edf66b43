"""Columns of maps: what backbones make of images, one level above the other, in one stream or in two."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from architecture.drawing import Figure, Node
from architecture.labels import map_lines, wrapped
from torchfpn.backbones.fusion import LateFusion, SplitBands, StageFusion
from torchfpn.types import Level

Flow = tuple[Node, ...]  # nodes in the place of maps, finest first; a single map is a tuple of one


def numbers(levels: Sequence[Level]) -> list[int]:
    """The k of each C_k or P_k: its stride is 2**k; where several share one (a dilated network), the numbers go on."""
    found: list[int] = []
    for level in levels:
        k = max(level.stride, 1).bit_length() - 1
        found.append(max(k, found[-1] + 1) if found else k)
    return found


def levels_of(piece: nn.Module) -> tuple[Level, ...]:
    """What the piece declares; nothing for those that declare nothing (a Chain of such raises AttributeError)."""
    return tuple(getattr(piece, "levels", None) or ())


def draw_maps(figure: Figure, letter: str, flow: Flow, levels: Sequence[Level | None]) -> Flow:
    """What a piece gives, as it declares it."""
    column, known = figure.column(), [level for level in levels if level is not None]
    ks = numbers(known) if len(known) == len(levels) else [int(node.row) for node in flow]
    nodes = [
        figure.add(Node("map", column, k, map_lines(f"{letter}{k}", level), level))
        for k, level in zip(ks, levels, strict=True)
    ]
    for start, node in zip(flow, nodes, strict=True):
        figure.arrow(start, node)
    return tuple(nodes)


def draw_images(figure: Figure, column: int, row: float, piece: nn.Module) -> Node:
    """What goes in, with as many bands as the piece says it takes."""
    bands = getattr(piece, "in_channels", None)
    lines = ("images", f"1/1 · {bands}") if isinstance(bands, int) else ("images",)
    return figure.add(Node("map", column, row, lines))


def draw_backbone(figure: Figure, body: nn.Module, flow: Flow) -> Flow:
    """The maps that `body` declares. flow: what it is given; nothing for the images themselves."""
    if isinstance(body, StageFusion):
        return _stage_fusion(figure, body, flow)
    if isinstance(body, LateFusion):
        return _late_fusion(figure, body, flow)
    levels, column = levels_of(body), figure.column()
    start = flow[0] if flow else draw_images(figure, column, _below(levels), body)
    return _tower(figure, column, levels, start)


def _below(levels: Sequence[Level]) -> int:
    """The row of the images, whose stride is 1: under that of every map."""
    return min(0, numbers(levels)[0] - 1)


def _tower(figure: Figure, column: int, levels: Sequence[Level], start: Node, lift: float = 0) -> Flow:
    """Maps above one another, each made of the one below."""
    maps = [
        figure.add(Node("map", column, k + lift, map_lines(f"C{k}", level), level))
        for k, level in zip(numbers(levels), levels, strict=True)
    ]
    for below, above in pairwise([start, *maps]):
        figure.arrow(below, above, "straight" if below.column == column else "out-up")
    return tuple(maps)


def _split(figure: Figure, column: int, split: SplitBands, body: nn.Module, flow: Flow, row: float) -> Node:
    start = flow[0] if flow else draw_images(figure, column, row, body)
    lines = ("split bands", f"{len(split.extra)} extra · {len(split.main)} main")
    box = figure.add(Node("op", column, row + 0.25, lines))
    figure.arrow(start, box, "straight" if start.column == column else "out-up")
    return box


def _stage_fusion(figure: Figure, body: StageFusion, flow: Flow) -> Flow:
    """Two towers of stages side by side; where they meet, the left one is added into the right one."""
    left, right, maps = figure.column("extra"), figure.column("main"), figure.column()
    ks = {name: int(name[1:]) for name, _ in body.main.named_children()}
    row = min(0, min(ks.values()) - 1)
    split = _split(figure, right, body.split, body, flow, row)
    extra = dict(body.extra.named_children())
    levels, below, beside, given = dict(zip(body.picked, body.levels, strict=True)), split, split, []
    before = float(row + 0.25)
    for name, stage in body.main.named_children():
        k, half = ks[name], (before + ks[name]) / 2
        box = figure.add(Node("op", right, half, _stage(name, stage)))
        end = figure.add(Node("plus" if name in body.points else "dot", right, k))
        figure.arrow(below, box)
        figure.arrow(box, end)
        below, before = end, float(k)
        if name in extra:
            box = figure.add(Node("op", left, half, _stage(name, extra[name])))
            figure.arrow(beside, box, "straight" if beside.column == left else "out-up")
            beside = figure.add(Node("dot", left, k))
            figure.arrow(box, beside)
            if name in body.points:
                figure.arrow(beside, end)
        if name in levels:
            node = figure.add(Node("map", maps, k, map_lines(f"C{k}", levels[name]), levels[name]))
            figure.arrow(end, node)
            given.append(node)
    return tuple(given)


def _stage(name: str, stage: nn.Module) -> tuple[str, ...]:
    parts = [part for part, _ in stage.named_children()]
    shown = parts if len(parts) <= 4 else [parts[0], "…", parts[-1]]
    return (name, *wrapped(shown)) if parts else (name, type(stage).__name__)


def _late_fusion(figure: Figure, body: LateFusion, flow: Flow) -> Flow:
    """Two towers, the left one half a row higher so that its arrows pass over the right one, and a plus per level."""
    left, right, plus = figure.column("extra"), figure.column("main"), figure.column()
    row = _below(body.levels)
    split = _split(figure, right, body.split, body, flow, row)
    main = _tower(figure, right, body.levels, split)
    extra = _tower(figure, left, levels_of(body.extra), split, lift=0.5)
    sums = [figure.add(Node("plus", plus, node.row, level=node.level)) for node in main]
    for x, y, end in zip(main, extra, sums, strict=True):
        figure.arrow(x, end)
        figure.arrow(y, end, "out-up")
    return draw_maps(figure, "C", tuple(sums), body.levels)
