"""Models as graphs: batch and size free where the network has no fixed windows, equal to what the model gives."""

import pytest
import torch

from contract.subjects import CNNS, LARGER_CNNS, PAIRS, PYRAMIDS, close, images, made, product, whole
from torchfpn.export.torch_export import graph

SHAPES = [(1, 64, 96), (3, 41, 33), (1, 1, 1), (2, 1, 40), (1, 32, 32), (1, 130, 7)]


def check(model, program, shapes):
    run = program.module(check_guards=False)
    with torch.inference_mode():
        for batch, height, width in shapes:
            x = images(model, height, width, batch=batch)
            close(run(x), model(x))


@pytest.mark.parametrize("name", [*CNNS, *product(LARGER_CNNS)])
def test_batch_and_size_are_free(name):
    model = made(name).eval()
    check(model, graph(model, 3), SHAPES)


def test_two_streams_and_two_paths_have_a_graph():
    model = whole("panet", "concat", fusion="fusenet", in_channels=5).eval()
    check(model, graph(model, model.backbone.in_channels), SHAPES)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_transformers_have_a_graph_of_one_size(name):
    model = made(name).eval()
    check(model, graph(model, 3, batch=2, size=(65, 96)), [(2, 65, 96)])


@pytest.mark.product
def test_a_vision_transformer_is_free_too():
    model = made("test_vit").eval()
    check(model, graph(model, 3), SHAPES)


def test_the_model_stays_in_its_mode():
    model = made().train()
    graph(model, 3, batch=1, size=(32, 32))
    assert model.training
    assert model.backbone.training
    model.backbone.eval()
    modes = [m.training for m in model.modules()]
    graph(model, 3, batch=1, size=(32, 32))
    assert [m.training for m in model.modules()] == modes


def compiles(model, backend):
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    x = images(model, 64, 40)
    with torch.inference_mode():
        close(compiled(x), model(x), share=1e-3)


@pytest.mark.parametrize("pair", [("panet", "concat"), ("fpn on fused bands", "finest")])
def test_compile_makes_one_graph(pair):
    compiles(whole(*pair).eval(), "eager")


@pytest.mark.product
@pytest.mark.parametrize("pyramid", PYRAMIDS)
def test_the_whole_product_has_graphs(pyramid):
    for head in ("sum", "concat"):
        model = whole(pyramid, head).eval()
        check(model, graph(model, model.backbone.in_channels), SHAPES)


@pytest.mark.product
@pytest.mark.parametrize("pair", PAIRS, ids=" x ".join)
def test_the_whole_product_compiles(pair):
    compiles(whole(*pair).eval(), "eager")


@pytest.mark.product
def test_inductor_gives_the_same():
    compiles(made().eval(), "inductor")
