"""The Task of detection and instance segmentation: two stages, and between them a sample of boxes against the targets.

raw images --scaling--> model --> Regions --+--> criterion(., choice)  -> {name: loss}
                  choose ^                  +--> postprocess(., sizes) -> [Instances, ...]
"""

from collections.abc import Sequence

from torch import Tensor

from torchfpn.errors import ShapeError
from torchfpn.heads.propose import Limits
from torchfpn.nn.detector import as_sizes
from torchfpn.tasks.task import Task
from torchfpn.types import Batch, Objects, Regions, Size

TRAINING = Limits(2000, 2000)  # proposals that are sampled from; twice what is looked at in inference


class RegionTask(Task):
    """As `Task`, of a model that gives `Regions`; results are `Instances`."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each term of the criterion by name; the loss is their sum. Images without objects are learnt from as well.

        Boxes are sampled with torch's global generator on the CPU.

        Raises:
            ShapeError: a batch without targets, or of another number of them than images.
        """
        targets = batch.targets
        if not isinstance(targets, Sequence) or len(targets) != len(batch.images):
            found = f"{len(targets)} targets" if isinstance(targets, Sequence) else f"targets {targets}"
            raise ShapeError(found, allowed=f"a list of {len(batch.images)} Objects, one for each image")
        choice = self.criterion.joints(targets)  # type: ignore[operator]  # a RegionCriterion
        images, _ = self.normalize(batch.images)
        regions: Regions = self.model(
            images,
            as_sizes(batch.sizes, images),
            choose=choice.choose,
            detect=choice.detect,
            limits=TRAINING,
        )
        losses: dict[str, Tensor] = self.criterion(regions, choice)
        return losses

    def _results(self, raw: Tensor, sizes: Sequence[Size]) -> list[Objects]:
        images, _ = self.normalize(raw)
        results: list[Objects] = self.postprocess(self.model(images, as_sizes(list(sizes), images)), sizes)
        return results
