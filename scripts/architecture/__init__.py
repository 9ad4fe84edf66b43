"""A model as a figure in the manner of the papers: a row per level, coarsest at the top, a column per step.

Nothing is drawn from a description: the model's children are walked as `forward` would run them, with nodes of the
drawing in the place of maps.
"""

from torch import nn

from architecture.backbones import Flow, draw_backbone, draw_images, draw_maps, levels_of
from architecture.drawing import Figure, Node
from architecture.labels import map_lines
from architecture.steps import draw_children, draw_step
from torchfpn.nn.containers import Fork, Parallel, Pick
from torchfpn.pyramids.panet import BottomUp

FINEST = 2  # the row of P2


def architecture(model: nn.Module) -> str:
    """The model (named children, such as `backbone`, `pyramid`, `head`) as a self-contained SVG.

    A piece of a kind that is not known is a box with the name of its class.
    """
    pieces = list(model.named_children()) or [("model", model)]
    if levels_of(model) and hasattr(model, "in_channels"):  # a backbone by itself, whose children are no pieces
        pieces = [("backbone", model)]
    if isinstance(model, Fork):  # whose children are no pieces in a row either
        pieces = [("fork", model)]
    figure = Figure(" → ".join(name for name, _ in pieces))
    flow: Flow = ()
    seen = False  # the backbone, which is the first that declares levels
    for name, piece in pieces:
        figure.panel(name, _kind(piece))
        levels = levels_of(piece)
        if levels and not seen:
            flow, seen = draw_backbone(figure, piece, flow), True
            continue
        flow = flow or _given(figure, piece)
        flow = (
            draw_children(figure, piece, flow)
            if isinstance(piece, nn.Sequential)
            else draw_step(figure, "", piece, flow)
        )
        if levels:
            letter = "N" if any(isinstance(module, BottomUp) for module in piece.modules()) else "P"
            flow = draw_maps(figure, letter, flow, levels)
    if flow and (len(flow) == 1 or flow[0].span) and flow[0].kind != "map":
        end, lowest = flow[0], min(node.row for node in figure.nodes)
        column = end.column if end.row > lowest else figure.column()
        lines = map_lines("output" if end.level is None else "logits", end.level)
        figure.arrow(end, figure.add(Node("map", column, lowest, lines, end.level)))
    return figure.svg()


def _given(figure: Figure, piece: nn.Module) -> Flow:
    """What the first piece is given: images, or the maps that it has a module for each, strides unknown."""
    first: nn.Module = piece
    while isinstance(first, nn.Sequential | Fork) and len(first):
        first = next(first.children())
    column, count = figure.column(), 0
    if isinstance(first, Parallel):
        count = len(first)
    elif isinstance(first, Pick):
        count = max((first.index,) if isinstance(first.index, int) else first.index) + 1
    if not count:
        return (draw_images(figure, column, 0, piece),)
    return tuple(figure.add(Node("map", column, FINEST + i, ("map",))) for i in range(count))


def _kind(piece: nn.Module) -> str:
    name = getattr(piece, "name", None)
    return name if isinstance(name, str) else type(piece).__name__
