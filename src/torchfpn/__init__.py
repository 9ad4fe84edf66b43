"""torchfpn: feature pyramid networks in PyTorch, from pixels to maps.

A model is three words, `backbone`, `pyramid`, `head`, on images of any size with any number of bands.
Names are imported when they are first used, so that `import torchfpn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torchfpn.deprecated import install

__version__ = "0.1.0"
install()

if TYPE_CHECKING:
    from torchfpn.backbones import backbone as backbone
    from torchfpn.backbones.names import list_backbones as list_backbones
    from torchfpn.config.settings import TrainConfig as TrainConfig
    from torchfpn.errors import ConfigError as ConfigError
    from torchfpn.errors import DataError as DataError
    from torchfpn.errors import FPNError as FPNError
    from torchfpn.errors import RasterError as RasterError
    from torchfpn.errors import ShapeError as ShapeError
    from torchfpn.errors import WeightsError as WeightsError
    from torchfpn.evaluation.evaluate import evaluate as evaluate
    from torchfpn.heads.semantic import ConcatHead as ConcatHead
    from torchfpn.heads.semantic import FinestHead as FinestHead
    from torchfpn.heads.semantic import SemanticHead as SemanticHead
    from torchfpn.importers.convert import convert as convert
    from torchfpn.inference.predict import predict as predict
    from torchfpn.nn.any_size import AnySize as AnySize
    from torchfpn.nn.containers import Chain as Chain
    from torchfpn.nn.containers import Concat as Concat
    from torchfpn.nn.containers import Fork as Fork
    from torchfpn.nn.containers import Parallel as Parallel
    from torchfpn.nn.containers import Pick as Pick
    from torchfpn.nn.containers import Shared as Shared
    from torchfpn.nn.containers import Stages as Stages
    from torchfpn.nn.containers import Sum as Sum
    from torchfpn.nn.containers import chain as chain
    from torchfpn.ops.masks import Instances as Instances
    from torchfpn.pyramids.fpn import FPN as FPN
    from torchfpn.pyramids.fpn import ConvLevels as ConvLevels
    from torchfpn.pyramids.fpn import FromBackbone as FromBackbone
    from torchfpn.pyramids.fpn import PoolLevel as PoolLevel
    from torchfpn.pyramids.panet import PANet as PANet
    from torchfpn.pyramids.simple import SimplePyramid as SimplePyramid
    from torchfpn.recipe import Recipe as Recipe
    from torchfpn.recipe import Scaling as Scaling
    from torchfpn.tasks.build import create_task as create_task
    from torchfpn.tasks.build import load as load
    from torchfpn.tasks.factories import make_fpn_efficientnet as make_fpn_efficientnet
    from torchfpn.tasks.factories import make_fpn_resnet as make_fpn_resnet
    from torchfpn.tasks.model import create_model as create_model
    from torchfpn.tasks.storage import load_model as load_model
    from torchfpn.tasks.task import Task as Task
    from torchfpn.train.fit import fit as fit
    from torchfpn.types import Batch as Batch
    from torchfpn.types import Level as Level
    from torchfpn.types import Objects as Objects
    from torchfpn.types import Panoptic as Panoptic
    from torchfpn.types import PanopticTargets as PanopticTargets
    from torchfpn.types import Segment as Segment
    from torchfpn.types import Semantic as Semantic

_HOMES = {
    "torchfpn.backbones": ["backbone"],
    "torchfpn.backbones.names": ["list_backbones"],
    "torchfpn.config.settings": ["TrainConfig"],
    "torchfpn.errors": ["ConfigError", "DataError", "FPNError", "RasterError", "ShapeError", "WeightsError"],
    "torchfpn.evaluation.evaluate": ["evaluate"],
    "torchfpn.heads.semantic": ["ConcatHead", "FinestHead", "SemanticHead"],
    "torchfpn.importers.convert": ["convert"],
    "torchfpn.inference.predict": ["predict"],
    "torchfpn.nn.any_size": ["AnySize"],
    "torchfpn.nn.containers": ["Chain", "Concat", "Fork", "Parallel", "Pick", "Shared", "Stages", "Sum", "chain"],
    "torchfpn.ops.masks": ["Instances"],
    "torchfpn.pyramids.fpn": ["ConvLevels", "FPN", "FromBackbone", "PoolLevel"],
    "torchfpn.pyramids.panet": ["PANet"],
    "torchfpn.pyramids.simple": ["SimplePyramid"],
    "torchfpn.recipe": ["Recipe", "Scaling"],
    "torchfpn.tasks.build": ["create_task", "load"],
    "torchfpn.tasks.factories": ["make_fpn_efficientnet", "make_fpn_resnet"],
    "torchfpn.tasks.model": ["create_model"],
    "torchfpn.tasks.storage": ["load_model"],
    "torchfpn.tasks.task": ["Task"],
    "torchfpn.train.fit": ["fit"],
    "torchfpn.types": ["Batch", "Level", "Objects", "Panoptic", "PanopticTargets", "Segment", "Semantic"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_ROOMS = {"backbones", "criteria", "data", "errors", "heads", "metrics", "nn", "ops", "pyramids", "recipe", "types"}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"torchfpn.{name}")
    raise AttributeError(f"module 'torchfpn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return list(__all__)
