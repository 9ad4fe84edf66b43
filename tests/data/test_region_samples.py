"""Samples of objects: what comes out of COCO files, numbered images and polygons; what augmentation may change."""

import json
import pickle
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from made_data import picture, write_png, write_tiff
from made_objects import YAML, coco, make_objects, record, write_numbers
from shared import DATA, needs_shared
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset, SemanticDataset
from torchfpn.data.sample import collate
from torchfpn.data.sampler import Draw
from torchfpn.data.statistics import class_counts
from torchfpn.data.transforms import ObjectAugment, Resize
from torchfpn.errors import ConfigError, DataError
from torchfpn.ops.masks import areas, crop_images, paste
from torchfpn.ops.rle import to_rle
from torchfpn.recipe import Scaling
from torchfpn.report.images import to_rgb
from torchfpn.report.objects import Marks, draw_objects


def samples_of(folder, split="train", **options):
    return ObjectDataset(read_dataset(folder), split, **options)


def same(one, other):
    assert torch.equal(one.image, other.image)
    for name in ("boxes", "labels", "crowds"):
        assert torch.equal(getattr(one.objects, name), getattr(other.objects, name))
    assert torch.equal(paste(one.objects.masks), paste(other.objects.masks))


def test_boxes_labels_and_masks_of_a_coco_file(tmp_path):
    crowd = record(5, (0, 0, 8, 8), iscrowd=1, segmentation={"size": [24, 32], "counts": "broken"})
    records = [
        record(9, (20, 10, 30, 20), category=7),
        crowd,
        record(2, (2, 3, 10, 9)),
        record(4, (1, 1, 4, 4), image=2),
    ]
    samples = samples_of(make_objects(tmp_path, coco(records)))
    first = samples[0]
    assert first.objects.boxes.tolist() == [[20, 10, 30, 20], [2, 3, 10, 9]]  # in the order of the file
    assert first.objects.labels.tolist() == [1, 0]
    assert first.objects.crowds.tolist() == [[0, 0, 8, 8]]
    assert areas(first.objects.masks).tolist() == [100, 48]
    assert torch.equal(first.image, torch.from_numpy(picture(0, (24, 32))).permute(2, 0, 1).float())
    assert len(samples[1].objects) == 1
    assert samples.annotations.numbers[samples.annotations.rows(0)].tolist() == [9, 2]
    assert samples.dataset.names == ("cell", "dot")
    assert [c.id for c in samples.dataset.classes] == [3, 7]
    assert samples.usual_size == (24, 32)


def test_run_lengths_spelt_either_way_are_the_same(tmp_path):
    mask = torch.zeros(1, 24, 32, dtype=torch.bool)
    mask[0, 4:9, 6:12] = True
    mask[0, 5, 7] = False
    text = to_rle(crop_images(mask))[0]
    flat = mask[0].T.reshape(-1).numpy().astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    lengths = np.diff([0, *edges, 768]).tolist()
    records = [
        record(1, (6, 4, 12, 9), segmentation=dict(text)),
        record(2, (6, 4, 12, 9), segmentation={"size": [24, 32], "counts": lengths}),
    ]
    masks = paste(samples_of(make_objects(tmp_path, coco(records)))[0].objects.masks)
    assert torch.equal(masks, mask.expand(2, -1, -1))


@pytest.mark.parametrize(
    ("classes", "ids"),
    [
        ("", [3, 7]),
        ("classes: [dot, cell]\n", [7, 3]),
        ("classes: {3: cell, 7: dot}\n", [3, 7]),
        ("classes: {3: Zelle, 7: Punkt}\n", [3, 7]),
        ("classes: {0: dot, 1: cell}\n", [0, 1]),
        ("classes: [cell]\nignore_index: 7\n", [3]),
    ],
)
def test_classes_by_name_or_id_or_left_out(tmp_path, classes, ids):
    samples = samples_of(make_objects(tmp_path, yaml=classes + YAML))
    assert [c.id for c in samples.dataset.classes] == ids
    names = ["dot" if name == "Punkt" else "cell" if name == "Zelle" else name for name in samples.dataset.names]
    found = [names[label] for label in samples[0].objects.labels]
    assert found == (["cell"] if len(ids) == 1 else ["cell", "dot"])


def test_a_category_of_another_name_is_not_a_class_by_its_id(tmp_path):
    """The file of "val" has pedestrians as 3, which are cells in that of "train"."""
    folder = make_objects(tmp_path)
    other = coco([record(1, (2, 3, 10, 9)), record(2, (20, 10, 30, 20), category=7)])
    other["categories"] = [{"id": 3, "name": "pedestrian"}, {"id": 7, "name": "dot"}]
    (folder / "train" / "val.json").write_text(json.dumps(other))
    yaml = YAML + "  val: {images: train/images, annotations: train/val.json}\n"
    (folder / "dataset.yaml").write_text(yaml)
    with pytest.raises(DataError, match=r'categories\[0\]: "pedestrian" is no class of the dataset'):
        samples_of(folder, "val")
    other["categories"] = [{"id": 3, "name": "Zelle"}, {"id": 7, "name": "Punkt"}]  # no name is known: ids tell
    (folder / "train" / "val.json").write_text(json.dumps(other))
    assert samples_of(folder, "val")[0].objects.labels.tolist() == [0, 1]


def test_classes_that_are_not_there(tmp_path):
    folder = make_objects(tmp_path, yaml="classes: [cell]\n" + YAML)
    with pytest.raises(DataError, match=r'categories\[1\]: "dot" is no class of the dataset.*ignore_index: 7'):
        samples_of(folder)
    (folder / "dataset.yaml").write_text("classes: [cell, dott]\n" + YAML)
    with pytest.raises(ConfigError, match=r'classes: "dott" is no category .* did you mean "dot"'):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("yaml", "found"),
    [
        (YAML.replace("instance\n", "semantic\n"), "splits.train.annotations: annotations of objects"),
        (YAML.replace("annotations:", "labels: x, annotations:"), "splits.train.labels: 'x'; expected nothing beside"),
        (YAML.replace("train/images,", "'{z}/{x}/{y}',"), "splits.train.images: '{z}/{x}/{y}'; expected a folder"),
        (YAML + "labels_are: colors\n", "labels_are: 'colors'; expected nothing with `task: instance`"),
        (YAML + "fix: 3\n", "fix: 3; expected true or false"),
    ],
)
def test_mistakes_in_the_yaml(tmp_path, yaml, found):
    with pytest.raises(ConfigError) as caught:
        read_dataset(make_objects(tmp_path, yaml=yaml))
    assert found in str(caught.value)


def test_one_pattern_for_all_splits(tmp_path):
    make_objects(tmp_path)
    (tmp_path / "test" / "images").mkdir(parents=True)
    yaml = 'task: detection\nimages: "{split}/images"\nannotations: "{split}/instances.json"\n'
    (tmp_path / "dataset.yaml").write_text(yaml)
    dataset = read_dataset(tmp_path)
    assert dataset.splits["train"].annotations == "train/instances.json"
    assert dataset.splits["test"].annotations is None
    assert samples_of(tmp_path)[0].objects.masks is None


def test_an_image_of_another_size_than_its_record(tmp_path):
    make_objects(tmp_path)
    write_png(tmp_path / "train" / "images" / "a1.png", picture(1, (32, 24)))
    told = r"a1.png: 24 x 32 pixels, 32 x 24 in instances.json; height and width have changed places"
    with pytest.raises(DataError, match=told):
        samples_of(tmp_path)[1]


def test_numbered_images(tmp_path):
    values = np.zeros((24, 32))
    values[2:6, 3:9], values[10:20, 4:8], values[4, 5], values[20:, 30:] = 7, 300, 300, 255
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "a.png", picture(0))
    write_numbers(tmp_path / "labels" / "a.png", values)
    yaml = "task: instance\nclasses: [cell]\nsplits: {train: {images: images, labels: labels}}\n"
    (tmp_path / "dataset.yaml").write_text(yaml)
    objects = samples_of(tmp_path)[0].objects
    assert objects.boxes.tolist() == [[3, 2, 9, 6], [30, 20, 32, 24], [4, 4, 8, 20]]
    np.testing.assert_array_equal(paste(objects.masks).numpy(), [values == n for n in (7, 255, 300)])
    (tmp_path / "dataset.yaml").write_text(yaml + "ignore_index: 255\n")
    objects = samples_of(tmp_path)[0].objects
    assert (len(objects), objects.crowds.tolist()) == (2, [[30, 20, 32, 24]])
    (tmp_path / "dataset.yaml").write_text(yaml.replace("[cell]", "[cell, dot]"))
    with pytest.raises(DataError, match="leaves open of which of 2 classes"):
        samples_of(tmp_path)[0]


def write_polygons(path, shapes, kinds=None):
    """Rectangles x1, y1, x2, y2 in pixels of 10 m, of an image whose corner lies at (500000, 4000000)."""
    features = []
    for i, (x1, y1, x2, y2) in enumerate(shapes):
        ring = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
        points = [[500000 + 10 * x, 4000000 - 10 * y] for x, y in ring]
        properties = {"kind": kinds[i]} if kinds else {}
        features.append(
            {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [points]}}
        )
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def make_scene(folder, size=(60, 80), yaml="", kinds=None):
    array = np.arange(2 * size[0] * size[1], dtype=np.uint16).reshape(2, *size)
    place = rasterio.Affine(10, 0, 500000, 0, -10, 4000000)
    write_tiff(folder / "scene.tif", array, crs="EPSG:32633", transform=place, tiled=True, blockxsize=16, blockysize=16)
    write_polygons(
        folder / "houses.geojson", [(5, 5, 15, 12), (30, 20, 50, 40), (70, 50, 95, 65), (79, 0, 99, 9)], kinds
    )
    text = f"task: instance\nclasses: [house]\nsplits: {{train: {{images: scene.tif, labels: houses.geojson}}}}\n{yaml}"
    (folder / "dataset.yaml").write_text(text if not kinds else text.replace("[house]", "[house, shed]"))
    return folder


def test_polygons_are_objects(tmp_path):
    samples = samples_of(make_scene(tmp_path))
    objects = samples[0].objects
    assert objects.boxes.tolist() == [[5, 5, 15, 12], [30, 20, 50, 40], [70, 50, 80, 60], [79, 0, 80, 9]]
    assert areas(objects.masks).tolist() == [70, 400, 100, 9]
    (tmp_path / "classes").mkdir()
    make_scene(
        tmp_path / "classes", yaml="polygons: {field: kind}\nignore_index: 9\n", kinds=["shed", "house", "9", "house"]
    )
    objects = samples_of(tmp_path / "classes")[0].objects
    assert objects.labels.tolist() == [1, 0, 0]
    assert objects.crowds.tolist() == [[70, 50, 80, 60]]


def test_a_scene_is_read_by_windows(tmp_path):
    make_scene(tmp_path, yaml="scene_pixels: 100\n")
    with pytest.raises(ConfigError, match="no crop"):
        samples_of(tmp_path, augment=ObjectAugment())
    samples = samples_of(tmp_path, augment=ObjectAugment(crop=(20, 20), turns=True, flip=0.5))
    assert len(samples) == 12
    assert list(samples.scenes) == [0]
    whole = np.arange(2 * 60 * 80).reshape(2, 60, 80)
    met = 0
    for i in range(40):
        sample = samples[Draw(i % 12, i)]
        assert sample.image.shape == (2, 20, 20)
        masks = paste(sample.objects.masks).numpy()
        met += len(masks)
        for box, mask in zip(sample.objects.boxes.round().int().tolist(), masks, strict=True):
            x1, y1, x2, y2 = box
            assert mask[y1:y2, x1:x2].all()  # rectangles stay whole
            assert mask.sum() == (x2 - x1) * (y2 - y1)
        inside = np.zeros((60, 80), bool)
        for x1, y1, x2, y2 in ((5, 5, 15, 12), (30, 20, 50, 40), (70, 50, 80, 60), (79, 0, 80, 9)):
            inside[y1:y2, x1:x2] = True
        shown = inside.ravel()[sample.image[0].int().numpy()]
        seen = masks.any(0) if len(masks) else np.zeros((20, 20), bool)
        assert not (seen & ~shown).any()
        assert (shown & ~seen).sum() <= 0.1 * 400 + 20  # but for those of which too little is seen
    assert met > 20
    assert whole.shape[1:] == samples.scenes[0].size
    windows = samples_of(tmp_path)
    assert len(windows) == 1
    assert windows[0].objects.boxes.shape == (4, 4)  # of one of them a twentieth is in the image
    assert len(windows.truth(0)) == 4


OPTIONS = {
    "resize": Resize((50, 50)), "crop": (24, 16), "scale": (0.5, 2.0), "mirror": 1.0, "flip": 1.0, "turns": True,
    "around": 1.0, "visible": 0.9, "covering": 0.01, "smallest": 6.0, "brightness": 0.5, "contrast": 0.5,
    "band_brightness": 0.5, "band_contrast": 0.5, "noise": 0.5, "scaling": Scaling((9.0,) * 2, (50.0,) * 2),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_augmentation_is_honoured_in_scenes(tmp_path, name):
    """Crops of a scene are those of the same image read whole, with the same keys, whatever is asked for."""
    assert OPTIONS.keys() == {field.name for field in fields(ObjectAugment)}
    given = {"mirror": 0.0, "crop": (20, 20), "scaling": OPTIONS["scaling"]} | {name: OPTIONS[name]}
    for part, pixels in (("whole", 10**6), ("scene", 100)):
        (tmp_path / part).mkdir()
        make_scene(tmp_path / part, yaml=f"scene_pixels: {pixels}\n")
    whole, scene = (samples_of(tmp_path / part, augment=ObjectAugment(**given)) for part in ("whole", "scene"))
    assert (len(whole.scenes), len(scene.scenes)) == (0, 1)
    met = 0
    for seed in range(12):
        one, other = whole[Draw(0, seed)], scene[Draw(seed % len(scene), seed)]
        same(one, other)
        met += len(one.objects) + len(one.objects.crowds) > 0
    assert met == 12 if name == "around" else met > 0


def test_a_scene_with_a_coco_file(tmp_path):
    make_scene(tmp_path)
    value = coco([record(1, (5, 5, 15, 12)), record(2, (30, 20, 50, 40))], images=0)
    value["images"] = [{"id": 1, "file_name": "scene.tif", "height": 60, "width": 80}]
    (tmp_path / "boxes.json").write_text(json.dumps(value))
    yaml = "task: instance\nscene_pixels: 100\nsplits: {train: {images: ., annotations: boxes.json}}\n"
    (tmp_path / "dataset.yaml").write_text(yaml)
    samples = samples_of(tmp_path, augment=ObjectAugment(crop=(20, 20)))
    found = [samples[Draw(0, i)].objects for i in range(30)]
    assert any(len(objects) for objects in found)
    for objects in found:
        sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(1)
        assert torch.equal(areas(objects.masks), sides.long())


def test_augmentation_is_a_function_of_the_draw(tmp_path):
    scaling = Scaling((100.0,) * 3, (50.0,) * 3)
    augment = ObjectAugment(
        resize=Resize((12, 40), 60), crop=(20, 20), scale=(0.8, 1.25), flip=0.5, turns=True, around=0.5,
        brightness=0.2, contrast=0.2, noise=0.05, scaling=scaling,
    )  # fmt: skip
    make_objects(tmp_path)
    one, other = samples_of(tmp_path, augment=augment), samples_of(tmp_path, augment=augment, cache=False)
    for i in range(8):
        same(one[Draw(i % 2, i)], other[Draw(i % 2, i)])
    assert not torch.equal(one[Draw(0, 1)].image, one[Draw(0, 2)].image)
    assert len({one[Draw(0, i)].size for i in range(20)}) > 1  # smaller images are not padded
    assert max(max(one[Draw(0, i)].size) for i in range(20)) == 20


def test_validation_is_resized_by_the_same_rule(tmp_path):
    make_objects(tmp_path)
    plain = samples_of(tmp_path)[0]
    double = samples_of(tmp_path, resize=Resize((10, 48)))[0]
    assert double.size == (48, 64)
    assert torch.equal(double.objects.boxes, 2 * plain.objects.boxes)
    assert torch.equal(areas(double.objects.masks), 4 * areas(plain.objects.masks))
    assert samples_of(tmp_path, resize=Resize((10, 48), 40))[0].size == (30, 40)
    assert samples_of(tmp_path, resize=Resize(longest=16))[0].size == (12, 16)
    with pytest.raises(ConfigError, match="shorter side"):
        Resize()
    with pytest.raises(ConfigError, match="shorter side"):
        Resize((5, 4))


def test_pixels_without_data_are_nan_and_batches_are_padded_with_it(tmp_path):
    make_objects(tmp_path, yaml="nodata: 0\n" + YAML)
    image = picture(0)
    image[:5] = 0
    write_png(tmp_path / "train" / "images" / "a0.png", image)
    samples = samples_of(tmp_path, augment=ObjectAugment(mirror=0))
    assert samples[0].image[:, :5].isnan().all()
    batch = collate([samples[0], samples_of(tmp_path, resize=Resize(longest=40))[1]])
    assert batch.images.shape == (2, 3, 30, 40)
    assert batch.sizes == [(24, 32), (30, 40)]
    assert batch.images[0, :, 24:].isnan().all()
    assert [len(objects) for objects in batch.targets] == [2, 0]
    assert batch.to("cpu").targets[0].boxes.shape == (2, 4)


def test_grey_images_among_coloured_ones(tmp_path):
    make_objects(tmp_path)
    write_png(tmp_path / "train" / "images" / "a1.png", picture(1)[..., 0])
    with pytest.raises(DataError, match="grey_as_color: true"):
        samples_of(tmp_path)[1]
    (tmp_path / "dataset.yaml").write_text(
        "grey_as_color: true\nbands: [red, green, blue]\nuse_bands: [blue, red]\n" + YAML
    )
    samples = samples_of(tmp_path)
    assert samples.bands == ("blue", "red")
    assert torch.equal(samples[1].image, torch.from_numpy(picture(1)[..., 0]).float().expand(2, -1, -1))
    assert torch.equal(samples[0].image[0], torch.from_numpy(picture(0)[..., 2]).float())


def test_crops_around_objects(tmp_path):
    folder = make_objects(tmp_path, coco([record(1, (150, 150, 156, 156))], 1, (200, 200)), images=1, size=(200, 200))
    seen = {}
    for around in (0.0, 1.0):
        samples = samples_of(folder, augment=ObjectAugment(crop=(40, 40), around=around))
        seen[around] = sum(len(samples[Draw(0, i)].objects) for i in range(40))
    assert seen[1.0] == 40
    assert seen[0.0] < 20


def test_the_kind_of_samples_follows_the_task(tmp_path):
    dataset = read_dataset(make_objects(tmp_path))
    with pytest.raises(ConfigError, match=r"task: a dataset for instance; expected semantic"):
        SemanticDataset(dataset, "train")
    with pytest.raises(ConfigError, match=r"task: a dataset for instance"):
        class_counts(dataset)


def test_many_annotations_load_in_seconds_and_travel_light(tmp_path):
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 6, 20)
    circle = 10 + 10 * np.stack([np.cos(angles), np.sin(angles)], 1)
    records = []
    for i in range(20_000):
        x, y = rng.uniform(0, 300), rng.uniform(0, 200)
        ring = (circle + np.array([x, y])).round(1).ravel().tolist()
        records.append(record(i, (x, y, x + 20, y + 20), image=1 + i % 2, segmentation=[ring]))
    folder = make_objects(tmp_path, coco(records, size=(256, 400)), size=(256, 400))
    start = time.perf_counter()
    samples = samples_of(folder, augment=ObjectAugment(crop=(64, 64)), cache=False)
    assert time.perf_counter() - start < 20  # 1.5 s on two shared cores
    text = pickle.dumps(samples)
    assert len(text) < 250 * 20_000
    same(pickle.loads(text)[Draw(1, 5)], samples[Draw(1, 5)])


@needs_shared
def test_blood_cells_and_nuclei(tmp_path):
    configs = Path(__file__).parents[2] / "configs" / "datasets"
    counts = {"bccd": (2804, [2381, 214, 209], 205), "nuclei": (9033, [9033], 232)}
    for name, (total, classes, images) in counts.items():
        samples = ObjectDataset(read_dataset(configs / f"{name}.yaml"), "train", cache=False)
        assert len(samples) == images
        assert len(samples.annotations.boxes) == total
        assert np.bincount(samples.annotations.labels).tolist() == classes
        augment = ObjectAugment(crop=(256, 256), scale=(0.7, 1.5), turns=True, flip=0.5)
        shown = ObjectDataset(samples.dataset, "train", augment=augment, cache=False)
        pictures = []
        for i in (0, 7, 100):
            sample = shown[Draw(i, i)]
            marks = Marks.of_truth(sample.objects, [c.color for c in shown.dataset.classes], sample.size)
            pictures.append(draw_objects(to_rgb(sample.image.numpy(), shown.bands), marks))
        height = max(len(one) for one in pictures)
        padded = [np.pad(one, ((0, height - len(one)), (0, 6), (0, 0))) for one in pictures]
        Image.fromarray(np.concatenate(padded, 1)).save(tmp_path / f"{name}.png")


@needs_shared
def test_numbered_nuclei_are_those_of_the_coco_file(tmp_path):
    root = DATA / "nuclei-dsb2018"
    text = "task: instance\nroot: {}\nclasses: [nucleus]\ngrey_as_color: true\n"
    text += "splits: {{val: {{images: val/images, {}}}}}\n"
    (tmp_path / "a.yaml").write_text(text.format(root, "labels: val/instances"))
    (tmp_path / "b.yaml").write_text(text.format(root, "annotations: val/instances.json"))
    one, other = (ObjectDataset(read_dataset(tmp_path / name), "val", cache=False) for name in ("a.yaml", "b.yaml"))
    by_name = {pair.image.name: i for i, pair in enumerate(other.pairs)}
    for i in (0, 20, 40):
        first, second = one[i], other[by_name[one.pairs[i].image.name]]
        assert torch.equal(paste(first.objects.masks), paste(second.objects.masks))
        torch.testing.assert_close(first.objects.boxes, second.objects.boxes)
