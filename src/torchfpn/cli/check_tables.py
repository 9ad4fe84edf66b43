"""What `fpn check` found, as tables: splits, classes, bands, polygons."""

from rich.table import Table
from rich.text import Text

from torchfpn.data.check import CheckReport
from torchfpn.data.statistics import SIZES, ObjectCounts
from torchfpn.errors import amount
from torchfpn.io.formats import printable

_FILES = 20  # of polygons that are shown


def tables(report: CheckReport) -> list[Table]:
    """The tables in the order they are read."""
    if report.dataset.is_panoptic:
        found = [_object_table(report), _panoptic_table(report)]
    elif report.dataset.has_objects:
        found = [_object_table(report), _kind_table(report)]
    else:
        found = [_split_table(report), _class_table(report)]
    found += [_band_table(report)] if report.bands else []
    return found + ([_polygon_table(report)] if report.polygons else [])


def _split_table(report: CheckReport) -> Table:
    table = _table("split", "images", "height", "width", "no data", "not labelled", title="splits")
    for split in report.splits:
        seen = split.counts.labelled + split.counts.ignored
        table.add_row(
            split.name,
            f"{split.images:,}",
            _range(split.heights),
            _range(split.widths),
            f"{split.missing:.2%}",
            f"{split.counts.ignored / seen:.2%}" if seen else "-",
        )
    return table


def _class_table(report: CheckReport) -> Table:
    """Pixels and share of every class in every split, and how many images hold it."""
    labelled = [split for split in report.splits if split.counts.labelled]
    heads = [head for split in labelled for head in (f"{split.name} pixels", "share", "images")]
    table = _table("", "class", "in files", *heads, title="classes")
    for i, c in enumerate(report.dataset.classes):
        cells = [
            cell
            for counts in (split.counts for split in labelled)
            for cell in (f"{counts.pixels[i]:,}", f"{counts.shares[i]:.2%}", f"{counts.images[i]:,}")
        ]
        red, green, blue = c.color
        value = f"#{red:02x}{green:02x}{blue:02x}" if report.dataset.labels_are == "colors" else str(c.id)
        table.add_row(Text("   ", style=f"on rgb({red},{green},{blue})"), c.name, value, *cells)
    return table


def _object_table(report: CheckReport) -> Table:
    """Images and objects of every split; small is below 32 x 32 pixels, large from 96 x 96 on."""
    void = ["void"] if report.dataset.is_panoptic else []
    heads = (
        "split",
        "images",
        "height",
        "width",
        "no data",
        *void,
        "objects",
        "crowds",
        "images without",
        "/".join(SIZES),
        "sides",
    )
    table = _table(*heads, title="splits")
    for split in report.splits:
        counts = split.objects or ObjectCounts.none(len(report.dataset.classes))
        numbers = (counts.total, counts.crowds, counts.empty)
        seen = split.counts.labelled + split.counts.ignored
        table.add_row(
            split.name,
            f"{split.images:,}",
            _range(split.heights),
            _range(split.widths),
            f"{split.missing:.2%}",
            *(f"{split.counts.ignored / max(seen, 1):.2%}" for _ in void),
            *(f"{number:,}" for number in numbers),
            "/".join(f"{number:,}" for number in counts.sizes),
            _range((round(counts.min_side), round(counts.max_side))),
        )
    return table


def _kind_table(report: CheckReport) -> Table:
    """Objects and share of every class in every split, and how many images hold it."""
    known = [(split.name, split.objects) for split in report.splits if split.objects is not None]
    heads = [head for name, _ in known for head in (f"{name} objects", "share", "images")]
    table = _table("", "class", "in files", *heads, title="classes")
    for i, c in enumerate(report.dataset.classes):
        cells = [
            cell
            for _, counts in known
            for cell in (
                f"{counts.objects[i]:,}",
                f"{counts.objects[i] / max(counts.total, 1):.2%}",
                f"{counts.images_with_class[i]:,}",
            )
        ]
        red, green, blue = c.color
        table.add_row(Text("   ", style=f"on rgb({red},{green},{blue})"), c.name, str(c.id), *cells)
    return table


def _panoptic_table(report: CheckReport) -> Table:
    """Objects of every thing, and pixels, share of the labelled pixels and images of every class in every split."""
    known = [(split.name, split.objects, split.counts) for split in report.splits if split.objects is not None]
    heads = [head for name, *_ in known for head in (f"{name} objects", "pixels", "share", "images")]
    table = _table("", "class", "kind", "in files", *heads, title="classes")
    for i, c in enumerate(report.dataset.classes):
        cells = [
            cell
            for _, objects, counts in known
            for cell in (
                f"{objects.objects[i]:,}" if c.thing else "",
                f"{counts.pixels[i]:,}",
                f"{counts.shares[i]:.2%}",
                f"{counts.images[i]:,}",
            )
        ]
        red, green, blue = c.color
        color = Text("   ", style=f"on rgb({red},{green},{blue})")
        table.add_row(color, c.name, "thing" if c.thing else "stuff", str(c.id), *cells)
    return table


def _band_table(report: CheckReport) -> Table:
    table = _table("band", "min", "max", "mean", "std", title=f"bands ({' and '.join(report.dtypes)}, valid pixels)")
    for band in report.bands:
        numbers = (band.low, band.high, band.mean, band.std)
        table.add_row(band.name, *("-" if number is None else f"{number:.6g}" for number in numbers))
    return table


def _polygon_table(report: CheckReport) -> Table:
    heads = ("features", "repaired", "widened", "without area", "without class", "outside")
    table = _table("labels from polygons", *heads, title="polygons")
    for one in report.polygons[:_FILES]:
        numbers = (one.features, one.mended, one.widened, one.empty, one.unclassed, one.outside)
        table.add_row(printable(one.file.name), *(f"{number:,}" for number in numbers))
    if len(report.polygons) > _FILES:
        table.add_row(f"and {amount(len(report.polygons) - _FILES, 'more file')}", *[""] * 6)
    return table


def _table(*columns: str, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or column == "class" else "right")
    return table


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}..{ends[1]}"
