"""The score of a detector's weights as they are: average precision over the validation images."""

import logging
from collections.abc import Callable
from typing import Any

from torchfpn.data.region_samples import RegionSamples
from torchfpn.errors import NotFiniteError
from torchfpn.metrics.average_precision import AveragePrecision
from torchfpn.ops.instances import Instances, no_instances
from torchfpn.tasks.evaluate_regions import TruthFacts, image_ranks, truth_facts
from torchfpn.tasks.region_task import RegionTask
from torchfpn.types import Batch

log = logging.getLogger(__name__)


class RegionValidation:
    """One round over the validation images, batch by batch, in their own pixels.

    gather: a value of each of the processes that train together. source: what the images are of: it knows areas and the
    classes of crowds, so that this score is that of `evaluate_regions`.
    """

    def __init__(
        self,
        task: RegionTask,
        gather: Callable[[Any], list[Any]] = lambda value: [value],
        source: RegionSamples | None = None,
    ) -> None:
        self.task, self.gather, self.source = task, gather, source
        self.ranks = image_ranks(source)
        self.masks = task.recipe.task == "instance"
        self.scores = AveragePrecision(task.classes, masks=self.masks)
        self.told = False

    def step(self, batch: Batch, first: int = 0) -> list[Instances]:
        """Takes in one batch and gives its results. first: the number of its first image in the split."""
        try:
            results: list[Instances] = self.task.predict(batch)
        except NotFiniteError as error:  # the weights of an epoch may be bad and those of a later one good
            if not self.told:
                log.warning("%s", error)
            self.told = True
            results = [no_instances(size, masks=self.masks) for size in batch.sizes]
        for number, (found, objects) in enumerate(zip(results, batch.targets, strict=True), first):
            truth = objects.to("cpu")
            facts = TruthFacts() if self.source is None else truth_facts(self.source, number, truth)
            rank = number if self.ranks is None else self.ranks[number]
            self.scores.update(found.to("cpu"), truth, areas=facts.areas, crowd_labels=facts.crowd_labels, number=rank)
        return results

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv; NaN for a class that does not occur in the truth."""
        every = AveragePrecision(self.task.classes, masks=self.masks)
        for state in self.gather(self.scores.state()):
            every.merge(state)
        found = every.compute()
        table = found.boxes if found.masks is None else found.masks
        masks = {} if found.masks is None else {"val/mask_ap": found.masks.ap, "val/mask_ap50": found.masks.ap50}
        return {
            "val/ap": found.boxes.ap,
            "val/ap50": found.boxes.ap50,
            "val/ap75": found.boxes.ap75,
            **masks,
            **{f"val/ap_{name}": ap for name, ap in zip(self.task.classes, table.class_ap, strict=True)},
        }
