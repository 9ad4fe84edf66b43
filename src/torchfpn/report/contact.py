"""index.html of `fpn compare`: the scores over all images and small pictures of each, the worst first. One file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from torchfpn.report.class_table import class_section, with_unit
from torchfpn.report.html import POLICY
from torchfpn.report.run import Scores

WIDE = 1060  # pixels: the width of the page
MOST = 200  # pictures on the page


@dataclass(frozen=True)
class Entry:
    """A picture on the page. file: of the large one, beside the page. line: what is said of it. small: WebP."""

    file: str
    line: str
    small: bytes


def small(picture: Image.Image) -> bytes:
    """A picture reduced to the width of the page, as WebP."""
    height = max(1, round(picture.height * min(1.0, WIDE / picture.width)))
    reduced = picture.resize((min(WIDE, picture.width), height), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    reduced.save(target, "WEBP", quality=82, method=4)
    return target.getvalue()


def contact_page(entries: Sequence[Entry], scores: Scores | None, images: int) -> str:
    """The whole document. scores: over all images. images: how many there are, of which `entries` are shown."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    tiles = [("images", f"{images:,}")]
    if scores is not None:
        tiles = [("mIoU", with_unit(scores.miou)), ("pixel accuracy", with_unit(scores.pixel_accuracy)), *tiles]
    boxes = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles)
    classes = f"<section><h2>Classes</h2>{class_section(scores)}</section>" if scores is not None else ""
    order = "those with the lowest mean IoU first" if scores is not None else "in the order they were given"
    note = f'<p class="note">{len(entries):,} of {images:,}, {order}; each leads to the picture in full size.</p>'
    figures = "".join(_figure(entry) for entry in entries)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>comparison</title><style>\n{style}</style></head>\n"
        f'<body><main><header><h1>Comparison</h1><div class="tiles">{boxes}</div></header>{classes}'
        f"<section><h2>Images</h2>{note}{figures}</section></main>"
        "<footer>written by torchfpn</footer></body></html>\n"
    )


def _figure(entry: Entry) -> str:
    data = base64.b64encode(entry.small).decode()
    return (
        f'<figure class="sample"><figcaption>{escape(entry.line)}</figcaption><div class="wide">'
        f'<a href="{quote(entry.file)}"><img alt="{escape(entry.line)}" src="data:image/webp;base64,{data}"></a>'
        "</div></figure>"
    )
