"""Former module paths that the documentation named: they import from the new place, with a DeprecationWarning."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

MOVED: dict[str, dict[str, str]] = {  # former module -> {former name: module and name today}; removed in 0.3
    "torchfpn.data.dataset": {"read_dataset": "torchfpn.data.config.read_dataset"},
    "torchfpn.data.samples": {"SemanticSamples": "torchfpn.data.datasets.SemanticDataset"},
    "torchfpn.data.region_samples": {"RegionSamples": "torchfpn.data.datasets.ObjectDataset"},
    "torchfpn.data.region_augment": {"RegionAugment": "torchfpn.data.transforms.ObjectAugment"},
    "torchfpn.data.resize": {"Resize": "torchfpn.data.transforms.Resize"},
    "torchfpn.export.graph": {"graph": "torchfpn.export.torch_export.graph"},
    "torchfpn.ops.instances": {"Instances": "torchfpn.ops.masks.Instances"},
    "torchfpn.raster": {},
    "torchfpn.raster.objects": {"ObjectCounter": "torchfpn.evaluation.objects.ObjectCounter"},
    "torchfpn.train.run": {"fit": "torchfpn.fit"},
    "torchfpn.vectors": {},
    "torchfpn.vectors.object_scores": {"score_objects": "torchfpn.metrics.polygons.score_objects"},
}


class MovedModules:
    """A finder and loader of `MOVED`, asked after all others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The former module, if it is one."""
        return spec_from_loader(name, self, is_package=not MOVED[name]) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None: Python makes an ordinary module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module its names, each imported when it is asked for."""
        former = module.__name__

        def moved(name: str) -> Any:
            if name not in MOVED[former]:
                raise AttributeError(f"module {former!r} has no attribute {name!r}")
            path = MOVED[former][name]
            warnings.warn(f"{former}.{name} is now {path}", DeprecationWarning, stacklevel=2)
            home, _, today = path.rpartition(".")
            return getattr(import_module(home), today)

        module.__getattr__ = moved  # type: ignore[method-assign]


def install() -> None:
    """Makes the former paths importable; once a process."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
