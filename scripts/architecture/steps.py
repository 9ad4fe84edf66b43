"""The steps of pyramids and heads, one function for each kind of child: nodes in, nodes out, as maps in `forward`."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from torch import nn

from architecture.backbones import Flow, draw_maps, levels_of, numbers
from architecture.drawing import Figure, Node
from architecture.labels import TIMES, describe, level_after, wrapped
from torchfpn.nn.containers import Concat, Fork, Parallel, Pick, Shared, Sum
from torchfpn.pyramids.fpn import ConvLevels, FromBackbone, PoolLevel, TopDown
from torchfpn.pyramids.panet import BottomUp
from torchfpn.pyramids.simple import Rescale
from torchfpn.types import Level


def draw_children(figure: Figure, piece: nn.Module, flow: Flow) -> Flow:
    """One step after the other, as an nn.Sequential runs."""
    for name, child in piece.named_children():
        flow = draw_step(figure, name, child, flow)
    return flow


def draw_step(figure: Figure, name: str, module: nn.Module, flow: Flow) -> Flow:
    """One child by its kind: wiring, layers in a row on one map, or something unknown."""
    draw = next((draw for kind, draw in STEPS.items() if isinstance(module, kind)), None)
    if draw is not None:
        return draw(figure, name, module, flow)
    if isinstance(module, nn.Sequential) and _wired(module):
        return draw_children(figure, module, flow)
    if len(flow) == 1 and not levels_of(module):
        return (_box(figure, figure.column(name), module, flow[0]),)
    return _across(figure, name, module, flow, (type(module).__name__,))


def _wired(module: nn.Sequential) -> bool:
    """Whether it is more than layers in a row."""
    return any(isinstance(child, tuple(STEPS)) for child in module.modules())


def _box(figure: Figure, column: int, module: nn.Module, start: Node) -> Node:
    if isinstance(module, nn.Identity):
        return start
    node = Node("op", column, start.row, describe(module), level_after(module, start.level))
    figure.arrow(start, figure.add(node))
    return node


def _across(figure: Figure, name: str, module: nn.Module, flow: Flow, lines: tuple[str, ...]) -> Flow:
    """One box over all rows: what goes in at each comes out at each, or at those the module declares."""
    levels = levels_of(module)
    ks = numbers(levels)
    rows = [*(node.row for node in flow), *ks]
    span = (min(rows), max(rows)) if len(set(rows)) > 1 else None
    node = figure.add(Node("op", figure.column(name), flow[0].row, lines, span=span))
    for start in flow:
        figure.arrow(start, node)
    if levels:
        return tuple(replace(node, row=k, level=level) for k, level in zip(ks, levels, strict=True))
    return tuple(replace(node, row=start.row) for start in flow)


def _join(figure: Figure, name: str, module: nn.Module, flow: Flow) -> Flow:
    first, level = flow[0], flow[0].level
    widths = [node.level.channels for node in flow if node.level is not None]
    if isinstance(module, Concat) and level is not None and len(widths) == len(flow):
        level = Level(sum(widths), level.stride)
    word = type(module).__name__.lower()
    lines = (word, f"→ {level.channels}") if isinstance(module, Concat) and level is not None else (word,)
    return (replace(_across(figure, name, module, flow, lines)[0], row=first.row, level=level),)


def _parallel(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    column = figure.column(name)
    return tuple(_box(figure, column, each, start) for each, start in zip(module, flow, strict=True))


def _shared(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    column = figure.column(f"{name} (shared)".lstrip())
    return tuple(_box(figure, column, module.each, start) for start in flow)


def _pick(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    picked = (flow[module.index],) if isinstance(module.index, int) else tuple(flow[i] for i in module.index)
    if len(picked) == len(flow):
        return picked
    column = figure.column(name)
    nodes = [figure.add(replace(node, kind="op", column=column, lines=("pick",), span=None)) for node in picked]
    for start, node in zip(picked, nodes, strict=True):
        figure.arrow(start, node)
    return tuple(nodes)


def _fork(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    """The first branch along the rows, each other one as a box above them; what the first gives goes on."""
    column, given, top = len(figure.columns), flow, max(node.row for node in flow)
    for number, (branch, piece) in enumerate(module.items()):
        if number == 0:
            given = draw_step(figure, branch, piece, flow)
            while len(figure.columns) < column + 2:
                figure.column()
            figure.columns[column] = branch
            continue
        lines = (branch, *wrapped([part for part, _ in piece.named_children()]))
        box = figure.add(Node("op", column, top + number, lines))
        for start in flow:
            figure.arrow(start, box)
        figure.arrow(box, figure.add(Node("map", column + 1, top + number, ("output",))))
    return given


def _top_down(figure: Figure, name: str, module: nn.Module, flow: Flow) -> Flow:
    column = figure.column(name)
    nodes = [figure.add(Node("plus", column, node.row, level=node.level)) for node in flow[:-1]]
    nodes.append(figure.add(Node("dot", column, flow[-1].row, level=flow[-1].level)))
    for start, node in zip(flow, nodes, strict=True):
        figure.arrow(start, node)
    for finer, coarser in pairwise(nodes):
        ratio = coarser.level.stride // finer.level.stride if coarser.level and finer.level else 1
        figure.arrow(coarser, finer, label=f"{TIMES}{ratio}" if ratio > 1 else "")
    return tuple(nodes)


def _bottom_up(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    if any(node.kind != "map" for node in flow):
        flow = draw_maps(figure, "P", flow, [node.level for node in flow])
    merge, after = figure.column(name), figure.column()
    done = figure.add(Node("dot", after, flow[0].row, level=flow[0].level))
    figure.arrow(flow[0], done)
    given = [done]
    for step, start in zip(module, flow[1:], strict=True):
        shrink = figure.add(Node("op", merge, (done.row + start.row) / 2, describe(step.shrink)))
        plus = figure.add(Node("plus", merge, start.row, level=start.level))
        figure.arrow(done, shrink, "up-out")
        figure.arrow(shrink, plus)
        figure.arrow(start, plus)
        done = _box(figure, after, step.conv, plus)
        given.append(done)
    return tuple(given)


def _rescale(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    (start,), column = flow, figure.column(name)
    nodes = []
    for i, each in enumerate(module.values()):
        level = level_after(each, start.level)
        known = level is not None and start.level is not None
        # Without a level the order is all that is known: four times, twice, once, half.
        row = numbers([level])[0] if known and level is not None else start.row - len(module) + 2 + i
        if isinstance(each, nn.Identity):
            nodes.append(start)
        else:
            nodes.append(figure.add(Node("op", column, row, describe(each), level)))
            figure.arrow(start, nodes[-1])
    return tuple(nodes)


def _from_backbone(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    maps = draw_children(figure, module.pyramid, flow)
    return (*maps, *draw_step(figure, "extra", module.extra, flow)[len(flow) :])


def _conv_levels(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    column, last = figure.column(name), flow[-1]
    for i, conv in enumerate(module):
        node = Node("op", column, last.row + 1, describe(conv, *["ReLU"] * (i > 0)), level_after(conv, last.level))
        figure.arrow(last, figure.add(node), "straight" if i else "up-out")
        flow, last = (*flow, node), node
    return flow


def _pool_level(figure: Figure, name: str, module: Any, flow: Flow) -> Flow:
    node = Node("op", figure.column(name), flow[-1].row + 1, (f"max pool 1{TIMES}1 /2",), module.levels[-1])
    figure.arrow(flow[-1], figure.add(node), "up-out")
    return (*flow, node)


STEPS: dict[type[nn.Module], Callable[[Figure, str, Any, Flow], Flow]] = {  # a subclass before its base
    FromBackbone: _from_backbone,
    BottomUp: _bottom_up,
    ConvLevels: _conv_levels,
    PoolLevel: _pool_level,
    TopDown: _top_down,
    Rescale: _rescale,
    Parallel: _parallel,
    Shared: _shared,
    Fork: _fork,
    Pick: _pick,
    Sum: _join,
    Concat: _join,
}
