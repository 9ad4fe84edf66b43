"""Pascal VOC's XML: a file for each image, with boxes. Read without entities: a file with a DOCTYPE is refused.

VOC counts pixels from 1, its last ones included; many tools that write its files count from 0. Which of both it is
shows in the coordinates: a 0 or a fraction among the first corners means from 0.
"""

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from torchfpn.data.annotation_formats.labelled import BadObject, LabelledObject, box_object, read_small_file
from torchfpn.errors import DataError
from torchfpn.types import Size

_DEPTH = 32

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class Element:
    """A part of an XML file: its text and the parts below."""

    name: str
    text: str = ""
    parts: list["Element"] = field(default_factory=list)

    def part(self, name: str) -> "Element | None":
        """The first part of the name."""
        return next((one for one in self.parts if one.name == name), None)

    def value(self, name: str) -> str:
        """The text of a part, empty without one."""
        found = self.part(name)
        return "" if found is None else " ".join(found.text.split())


def read_xml(path: Path) -> Element:
    """The root of an XML file.

    Raises:
        DataError: no XML, a DOCTYPE (which may name other files and multiply itself), nested too deeply, too large.
    """
    root = Element("")
    stack = [root]

    def begin(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEPTH:
            raise DataError("nested too deeply", file=path, allowed=f"at most {_DEPTH} levels")
        stack[-1].parts.append(Element(name))
        stack.append(stack[-1].parts[-1])

    def end(name: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def refuse(*_: object) -> int:
        raise DataError("a DOCTYPE", file=path, allowed="plain XML", hint="remove it")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text
    parser.StartDoctypeDeclHandler, parser.ExternalEntityRefHandler = refuse, refuse
    parser.buffer_text = True
    try:
        parser.Parse(read_small_file(path), True)
    except (expat.ExpatError, UnicodeError, ValueError, LookupError) as error:
        raise DataError(f"not XML: {error}", file=path) from error
    return root.parts[0]


class PascalVoc:
    """The boxes of XML files. from_one: whether they count pixels from 1."""

    name, suffix, background = "Pascal VOC", ".xml", False

    def __init__(self, files: list[Path]) -> None:
        self.from_one = True
        for path in files:
            try:
                boxes = [_corners(one) for one in read_xml(path).parts if one.name == "object"]
            except DataError:  # told when it is read
                continue
            if any(min(box[:2]) < 1 or not all(map(float.is_integer, box)) for box in boxes if box is not None):
                self.from_one = False
                break

    def names(self) -> list[str] | None:
        """Every file names its own."""
        return None

    def matches(self, path: Path) -> bool:
        """Whether it is an <annotation> of an image."""
        try:
            root = read_xml(path)
        except DataError as error:
            return "DOCTYPE" in error.found
        return root.name == "annotation" and any(root.part(name) for name in ("object", "size", "filename"))

    def read(self, path: Path, size: Size) -> tuple[list[LabelledObject], list[BadObject]]:
        """The objects of an image of (height, width) `size`; difficult ones are crowds.

        Raises:
            DataError: no XML, or of an image of another size.
        """
        root = read_xml(path)
        said = root.part("size")
        sides = ("", "") if said is None else (said.value("height"), said.value("width"))
        if sides not in (("", ""), ("0", "0"), (str(size[0]), str(size[1]))):
            raise DataError(f"{sides[1]} x {sides[0]} pixels, {size[1]} x {size[0]} in the image", file=path)
        things, bad = list[LabelledObject](), list[BadObject]()
        for i, one in enumerate(one for one in root.parts if one.name == "object"):
            label = one.value("name") or None
            try:
                things.append(self._thing(label, one, size))
            except DataError as error:
                bad.append(BadObject(f"object {i + 1}: {error.found}", label))
        return things, bad

    def _thing(self, label: str | None, one: Element, size: Size) -> LabelledObject:
        corners = _corners(one)
        if label is None:
            raise DataError("no name")
        if corners is None:
            raise DataError("no bndbox of xmin, ymin, xmax and ymax")
        x1, y1, x2, y2 = corners
        first = int(self.from_one)
        return box_object(label, (x1 - first, y1 - first, x2, y2), size, crowd=one.value("difficult") == "1")

    def notes(self) -> list[str]:
        """What people should know of how the files were read."""
        base = "from 1, the last pixel included, as Pascal VOC does" if self.from_one else "from 0"
        return [f"boxes are taken to count pixels {base}"]


def _corners(one: Element) -> list[float] | None:
    box = one.part("bndbox")
    try:
        return None if box is None else [float(box.value(name)) for name in _CORNERS]
    except ValueError:
        return None
