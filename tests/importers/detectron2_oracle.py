"""detectron2's Faster R-CNN, Mask R-CNN and Panoptic FPN on a ResNet, from file to answer, written from what they do.

The parity fixtures hold its stages; this holds the joints between them as well, image by image and box by box, with
torchvision's operators alone. The stages of this oracle are tested against the fixtures, too.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.ops import batched_nms, roi_align

BGR_MEAN = torch.tensor([103.53, 116.28, 123.675])[:, None, None]


class Frozen(nn.Module):
    """Batch norm of fixed numbers."""

    def __init__(self, width):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


class Conv(nn.Conv2d):
    """A convolution that carries its norm."""

    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = Frozen(outputs)

    def forward(self, x):
        return self.norm(super().forward(x))


class Block(nn.Module):
    """A bottleneck."""

    def __init__(self, inputs, width, stride, caffe):
        super().__init__()
        first, second = (stride, 1) if caffe else (1, stride)
        if inputs != 4 * width:
            self.shortcut = Conv(inputs, 4 * width, 1, stride)
        self.conv1, self.conv2 = Conv(inputs, width, 1, first), Conv(width, width, 3, second)
        self.conv3 = Conv(width, 4 * width, 1)

    def forward(self, x):
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(y + (self.shortcut(x) if hasattr(self, "shortcut") else x))


class Backbone(nn.Module):
    """ResNet and FPN, p2 to p6."""

    def __init__(self, blocks, caffe):
        super().__init__()
        self.bottom_up = nn.Module()
        self.bottom_up.stem = nn.Module()
        self.bottom_up.stem.conv1 = Conv(3, 64, 7, 2)
        inputs = 64
        for i, count in enumerate(blocks):
            stage = nn.Sequential()
            for k in range(count):
                stage.append(Block(inputs, 64 * 2**i, 2 if i and not k else 1, caffe))
                inputs = 256 * 2**i
            setattr(self.bottom_up, f"res{i + 2}", stage)
            setattr(self, f"fpn_lateral{i + 2}", nn.Conv2d(inputs, 256, 1))
            setattr(self, f"fpn_output{i + 2}", nn.Conv2d(256, 256, 3, padding=1))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bottom_up.stem.conv1(x)), 3, 2, 1)
        sums = []
        for k in (2, 3, 4, 5):
            x = getattr(self.bottom_up, f"res{k}")(x)
            sums.append(getattr(self, f"fpn_lateral{k}")(x))
        for k in (2, 1, 0):
            sums[k] = sums[k] + F.interpolate(sums[k + 1], scale_factor=2, mode="nearest")
        maps = [getattr(self, f"fpn_output{k + 2}")(sums[k]) for k in range(4)]
        return [*maps, F.max_pool2d(maps[3], 1, 2)]


def branch(**layers):
    """Layers by name."""
    made = nn.Module()
    for name, layer in layers.items():
        setattr(made, name, layer)
    return made


class Normed(nn.Conv2d):
    """A convolution that carries a group norm."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(32, outputs)

    def forward(self, x):
        return F.relu(self.norm(super().forward(x)))


class SemanticBranch(nn.Module):
    """p2 to p5 -> logits [1, classes, H, W]."""

    def __init__(self, classes):
        super().__init__()
        for level in (2, 3, 4, 5):
            layers = []
            for k in range(max(1, level - 2)):
                layers.append(Normed(256 if k == 0 else 128, 128))
                if level > 2:
                    layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            setattr(self, f"p{level}", nn.Sequential(*layers))
        self.predictor = nn.Conv2d(128, classes, 1)

    def forward(self, maps):
        x = sum(getattr(self, f"p{level}")(maps[level - 2]) for level in (2, 3, 4, 5))
        return F.interpolate(self.predictor(x), scale_factor=4, mode="bilinear", align_corners=False)


def moved(boxes, deltas, weights=(1, 1, 1, 1)):
    """Boxes [N, 4] after their deltas [N, 4]."""
    sides, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    deltas = deltas / torch.tensor(weights, dtype=torch.float32)
    sides, centres = sides * deltas[:, 2:].clamp(max=math.log(1000 / 16)).exp(), centres + deltas[:, :2] * sides
    return torch.cat([centres - sides / 2, centres + sides / 2], 1)


def clipped(boxes, size):
    """Boxes cut to an image (height, width)."""
    return torch.stack([boxes[:, k].clamp(0, size[1 - k % 2]) for k in range(4)], 1)


class Oracle(nn.Module):
    """image [3, H, W] red, green, blue, uint8 -> {"boxes", "scores", "classes", "masks"}.

    stuff: classes of a semantic branch beside that of all things; with some, also {"semantic", "panoptic"}.
    """

    def __init__(self, classes, *, blocks=(3, 4, 6, 3), masks=True, caffe=True, shorter=800, longer=1333, stuff=0):
        super().__init__()
        self.shorter, self.longer, self.classes = shorter, longer, classes
        self.backbone = Backbone(blocks, caffe)
        conv, scores, deltas = nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 3, 1), nn.Conv2d(256, 12, 1)
        self.proposal_generator = branch(rpn_head=branch(conv=conv, objectness_logits=scores, anchor_deltas=deltas))
        box_head = branch(fc1=nn.Linear(256 * 49, 1024), fc2=nn.Linear(1024, 1024))
        predictor = branch(cls_score=nn.Linear(1024, classes + 1), bbox_pred=nn.Linear(1024, 4 * classes))
        self.roi_heads = branch(box_head=box_head, box_predictor=predictor)
        if masks:
            fcn = {f"mask_fcn{k}": nn.Conv2d(256, 256, 3, padding=1) for k in (1, 2, 3, 4)}
            last = {"deconv": nn.ConvTranspose2d(256, 256, 2, 2), "predictor": nn.Conv2d(256, classes, 1)}
            self.roi_heads.mask_head = branch(**fcn, **last)
        if stuff:
            self.sem_seg_head = SemanticBranch(stuff + 1)

    def shown(self, image):
        """The image that the network sees, blue, green, red minus the mean, and (height, width)."""
        height, width = image.shape[-2:]
        scale = self.shorter / min(height, width)
        h, w = (self.shorter, scale * width) if height < width else (scale * height, self.shorter)
        if max(h, w) > self.longer:
            h, w = h * (self.longer / max(h, w)), w * (self.longer / max(h, w))
        size = (int(h + 0.5), int(w + 0.5))
        if image.dtype == torch.uint8:
            picture = Image.fromarray(image.flip(0).permute(1, 2, 0).numpy())
            pixels = np.asarray(picture.resize((size[1], size[0]), Image.BILINEAR)).astype("float32")
            pixels = torch.from_numpy(pixels).permute(2, 0, 1)
        else:
            pixels = F.interpolate(image.flip(0)[None], size, mode="bilinear", align_corners=False)[0]
        return pixels - BGR_MEAN, size

    def dense(self, maps):
        """(logits [3, h, w], deltas [12, h, w]) of each map."""
        head = self.proposal_generator.rpn_head
        hidden = [F.relu(head.conv(x)) for x in maps]
        return [(head.objectness_logits(x)[0], head.anchor_deltas(x)[0]) for x in hidden]

    def proposals(self, maps, size):
        """[at most 1000, 4], best first."""
        boxes, logits, levels = [], [], []
        for level, (score, delta) in enumerate(self.dense(maps)):
            stride, area = 4 * 2**level, (32 * 2**level) ** 2
            anchors = []
            for y in range(score.shape[1]):
                for x in range(score.shape[2]):
                    for ratio in (0.5, 1.0, 2.0):
                        w = math.sqrt(area / ratio)
                        h = ratio * w
                        anchors.append([x * stride - w / 2, y * stride - h / 2, x * stride + w / 2, y * stride + h / 2])
            flat = score.permute(1, 2, 0).flatten()
            best, index = flat.topk(min(1000, len(flat)))
            codes = delta.view(3, 4, *delta.shape[1:]).permute(2, 3, 0, 1).reshape(-1, 4)
            boxes.append(moved(torch.tensor(anchors)[index], codes[index]))
            logits.append(best)
            levels.append(torch.full_like(index, level))
        boxes, logits, levels = clipped(torch.cat(boxes), size), torch.cat(logits), torch.cat(levels)
        keep = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, logits, levels = boxes[keep], logits[keep], levels[keep]
        return boxes[batched_nms(boxes, logits, levels, 0.7)[:1000]]

    def pooled(self, maps, boxes, size):
        """[N, 256, size, size]."""
        sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        levels = (4 + torch.log2(sides / 224 + 1e-8)).floor().clamp(2, 5)
        out = torch.zeros(len(boxes), 256, size, size)
        for level in (2, 3, 4, 5):
            here = levels == level
            out[here] = roi_align(maps[level - 2], [boxes[here]], size, 1 / 2**level, 0, aligned=True)
        return out

    def rois(self, maps, boxes):
        """(logits [N, classes + 1], deltas [N, 4 classes])."""
        head, predictor = self.roi_heads.box_head, self.roi_heads.box_predictor
        rows = F.relu(head.fc2(F.relu(head.fc1(self.pooled(maps, boxes, 7).flatten(1)))))
        return predictor.cls_score(rows), predictor.bbox_pred(rows)

    def mask_logits(self, maps, boxes):
        """[N, classes, 28, 28]."""
        head = self.roi_heads.mask_head
        x = self.pooled(maps, boxes, 14)
        for k in (1, 2, 3, 4):
            x = F.relu(getattr(head, f"mask_fcn{k}")(x))
        return head.predictor(F.relu(head.deconv(x)))

    def maps(self, pixels):
        """p2..p6 of an image that is padded to whole cells of the coarsest map that is learnt."""
        height, width = pixels.shape[-2:]
        return self.backbone(F.pad(pixels, (0, -width % 32, 0, -height % 32))[None])

    @torch.no_grad()
    def forward(self, image):
        pixels, size = self.shown(image)
        maps = self.maps(pixels)
        proposals = self.proposals(maps, size)
        logits, deltas = self.rois(maps, proposals)
        scores = logits.softmax(1)[:, :-1]
        boxes = moved(proposals.repeat_interleave(self.classes, 0), deltas.reshape(-1, 4), (10, 10, 5, 5))
        boxes = clipped(boxes, size).reshape(-1, self.classes, 4)
        rows, classes = (scores > 0.05).nonzero(as_tuple=True)
        boxes, scores = boxes[rows, classes], scores[rows, classes]
        keep = batched_nms(boxes, scores, classes, 0.5)[:100]
        boxes, scores, classes = boxes[keep], scores[keep], classes[keep]
        grids = None
        if hasattr(self.roi_heads, "mask_head"):
            grids = self.mask_logits(maps, boxes)[torch.arange(len(boxes)), classes].sigmoid()
        whole = image.shape[-2:]
        boxes = clipped(boxes * torch.tensor([whole[1] / size[1], whole[0] / size[0]] * 2), whole)
        there = (boxes[:, 2:] > boxes[:, :2]).all(1)
        found = {"boxes": boxes[there], "scores": scores[there], "classes": classes[there], "masks": None}
        if grids is not None:
            found["masks"] = pasted(grids[there], boxes[there], whole)
        if hasattr(self, "sem_seg_head"):
            logits = self.sem_seg_head(maps)[:, :, : size[0], : size[1]]
            found["semantic"] = F.interpolate(logits, whole, mode="bilinear", align_corners=False)[0]
            found["panoptic"] = combined(found)
        return found


def combined(found, overlap=0.5, area=4096, score=0.5):
    """(segments [H, W], [(label, isthing, score)]): instances by their scores, then stuff; 0 is things' class."""
    labels = found["semantic"].argmax(0)
    segments, infos = torch.zeros_like(labels), []
    for k in found["scores"].argsort(descending=True, stable=True).tolist():
        mask = found["masks"][k]
        if found["scores"][k] < score or not mask.any() or (segments[mask] > 0).sum() / mask.sum() > overlap:
            continue
        infos.append((int(found["classes"][k]), True, float(found["scores"][k])))
        segments[mask & (segments == 0)] = len(infos)
    for label in labels.unique().tolist():
        mask = (labels == label) & (segments == 0)
        if label > 0 and mask.sum() >= area:
            infos.append((label, False, None))
            segments[mask] = len(infos)
    return segments, infos


def pasted(grids, boxes, size):
    """Masks [N, H, W]: the grid read at the centre of every pixel, zero outside of it."""
    ys, xs = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
    masks = []
    for grid, (x1, y1, x2, y2) in zip(grids, boxes, strict=True):
        y, x = torch.meshgrid((ys - y1) / (y2 - y1) * 2 - 1, (xs - x1) / (x2 - x1) * 2 - 1, indexing="ij")
        masks.append(F.grid_sample(grid[None, None], torch.stack([x, y], 2)[None], align_corners=False)[0, 0] >= 0.5)
    return torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool)


def noisy(sure=1.5, **options):
    """An oracle with random weights of such a size that many boxes are found. sure: the larger, the higher scores."""
    torch.manual_seed(0)
    oracle = Oracle(7, **options).eval()
    with torch.no_grad():
        for module in oracle.modules():
            if isinstance(module, Frozen):
                module.running_var.uniform_(1.0, 3.0)
                module.running_mean.normal_(std=0.1)
        oracle.backbone.bottom_up.stem.conv1.weight /= 57
        pixels, size = oracle.shown(torch.randint(256, (3, 120, 150), dtype=torch.uint8))
        maps = oracle.maps(pixels)
        head, predictor = oracle.proposal_generator.rpn_head, oracle.roi_heads.box_predictor
        hidden = torch.cat([F.relu(head.conv(x)).flatten() for x in maps]).square().mean().sqrt() * 16
        head.objectness_logits.weight.normal_(std=float(1.0 / hidden))
        head.anchor_deltas.weight.normal_(std=float(0.3 / hidden))
        pooled = oracle.pooled(maps, oracle.proposals(maps, size), 7).flatten(1)
        rows = F.relu(oracle.roi_heads.box_head.fc2(F.relu(oracle.roi_heads.box_head.fc1(pooled))))
        deep = rows.square().mean().sqrt() * 32
        predictor.cls_score.weight.normal_(std=float(sure / deep))
        predictor.bbox_pred.weight.normal_(std=float(1.5 / deep))
        if hasattr(oracle.roi_heads, "mask_head"):
            oracle.roi_heads.mask_head.predictor.bias.zero_()
            logits = oracle.mask_logits(maps, oracle.proposals(maps, size)[:20])
            oracle.roi_heads.mask_head.predictor.weight *= float(2 / logits.std())
            oracle.roi_heads.mask_head.predictor.bias.copy_(-logits.mean((0, 2, 3)) * float(2 / logits.std()))
        if hasattr(oracle, "sem_seg_head"):
            logits = oracle.sem_seg_head(maps)
            oracle.sem_seg_head.predictor.bias -= logits.mean((0, 2, 3))
    return oracle
