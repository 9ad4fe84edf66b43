"""A model as a figure in the manner of the papers: a row per level, coarsest at the top, a column per step.

Nothing is drawn from a description: the model's children are walked as `forward` would run them, with nodes of the
drawing in the place of maps.
"""

from torch import nn

from torchfpn.pyramids.panet import BottomUp
from torchfpn.report.architecture_backbones import Flow, draw_backbone, draw_images, draw_maps, levels_of
from torchfpn.report.architecture_labels import map_lines
from torchfpn.report.architecture_steps import draw_children, draw_step
from torchfpn.report.drawing import Figure, Node


def architecture(model: nn.Module) -> str:
    """The model (named children, such as `backbone`, `pyramid`, `head`) as a self-contained SVG.

    A piece of a kind that is not known is a box with the name of its class.
    """
    pieces = list(model.named_children()) or [("model", model)]
    figure = Figure(" → ".join(name for name, _ in pieces))
    flow: Flow = ()
    seen = False  # the backbone, which is the first that declares levels
    for name, piece in pieces:
        figure.panel(name, _kind(piece))
        levels = levels_of(piece)
        if levels and not seen:
            flow, seen = draw_backbone(figure, piece, flow), True
            continue
        flow = flow or (draw_images(figure, figure.column(), 0, piece),)
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


def _kind(piece: nn.Module) -> str:
    name = getattr(piece, "name", None)
    return name if isinstance(name, str) else type(piece).__name__
