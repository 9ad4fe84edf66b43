"""Files made to open other files or addresses: no verb asks the network for anything, none shows what lies outside.

Every case is made and read twice, with two contents of the file outside; what is written must not differ.
"""

import json
import re
import socket
import sqlite3
import threading

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely

from made_data import write_png, write_tiff
from made_maps import PLACE, box, noise, write_geojson
from tiny_model import tiny_task
from torchfpn.cli.main import main
from torchfpn.errors import FPNError
from torchfpn.io.images import read_image

SIZE = (40, 48)


class Listener:
    """A server on loopback that counts who calls."""

    def __init__(self):
        self.heard, self.socket = [], socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                caller, _ = self.socket.accept()
            except OSError:
                return
            with caller:
                caller.settimeout(1)
                self.heard.append(caller.recv(200))


@pytest.fixture(scope="module")
def listener():
    found = Listener()
    yield found
    found.socket.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_task(bands=("red", "green", "blue"), dtype="uint8").save(path)
    return path


class Place:
    """A folder to be read, a secret beside it, an address that nobody may call."""

    def __init__(self, folder, address, value):
        self.folder, self.address = folder / "in", address
        self.folder.mkdir(parents=True)
        (folder / "secret").mkdir()
        columns = np.arange(SIZE[1]) // 5 % 2
        pixels = np.broadcast_to(np.where(columns == value, 255, 0).astype(np.uint8), (3, *SIZE))
        self.secret = write_tiff(folder / "secret" / "secret.tif", pixels, **PLACE)
        write_png(folder / "secret" / "secret.png", np.moveaxis(pixels, 0, 2).copy())
        write_geojson(folder / "secret" / "secret.geojson", [box(3 + 9 * value, 3, 9)])
        self.scene = write_tiff(self.folder / "scene.tif", noise(1, SIZE), **PLACE)

    def target(self, kind):
        remote = f"http://{self.address}/a.tif"
        return {
            "local": str(self.secret),
            "curl": f"/vsicurl/{remote}",
            "streaming": f"/vsicurl_streaming/{remote}",
            "url": remote,
            "curl option": f"/vsicurl?url=http%3A%2F%2F{self.address}%2Fa.tif",
            "zip": f"/vsizip/vsicurl/http://{self.address}/a.zip/a.tif",
        }[kind]


def vrt(target, *, relative=0, more="", bands=3, source="SimpleSource", band=""):
    height, width = SIZE
    flags = '<MDI key="INTERNAL_MASK_FLAGS_1">2</MDI>'
    one = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"{band}><{source}><SourceFilename relativeToVRT="{relative}">{target}'
        f"</SourceFilename><SourceBand>1</SourceBand></{source}></VRTRasterBand>"
        for i in range(1, bands + 1)
    )
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><Metadata>{flags}</Metadata>{more}{one}</VRTDataset>'
    )


def wms(place):
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>http://{place.address}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>9</UpperLeftY><LowerRightX>9</LowerRightX><LowerRightY>0"
        f"</LowerRightY><SizeX>{SIZE[1]}</SizeX><SizeY>{SIZE[0]}</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
    )


def raw_vrt(place):
    height, width = SIZE
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI>'
        '</Metadata><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename '
        f'relativetoVRT="0">{place.secret}</SourceFilename></VRTRasterBand></VRTDataset>'
    )


def aux(name, value, domain="OVERVIEWS"):
    return f'<PAMDataset><Metadata domain="{domain}"><MDI key="{name}">{value}</MDI></Metadata></PAMDataset>'


CASES = {}


def case(name, *verbs):
    """Registers what makes a hostile file, and the verbs that read it."""

    def kept(make):
        CASES[name] = make, verbs
        return make

    return kept


LOOKING = ("predict", "compare")
CONTENTS = {
    "a VRT over a file": lambda place: vrt(place.target("local"), bands=1),
    "a VRT over an address": lambda place: vrt(place.target("curl"), bands=1),
    "a VRT of raw bytes": raw_vrt,
    "a WMS": wms,
}
for _suffix in (".msk", ".MSK", ".ovr", ".OVR", ".msk.ovr", ".ovr.msk"):
    few = () if _suffix in (".msk", ".ovr") else ("a VRT over an address", "a WMS", "a VRT of raw bytes")
    for _name, _content in CONTENTS.items():
        if _name in few:  # the name is what differs: one content will do
            continue

        @case(f"scene.tif{_suffix}: {_name}", *LOOKING)
        def _(place, suffix=_suffix, content=_content):
            if suffix in (".msk.ovr", ".ovr.msk"):
                write_tiff(place.folder / f"scene.tif{suffix[:4]}", np.full((1, *SIZE), 255, np.uint8))
            (place.folder / f"scene.tif{suffix}").write_text(content(place))


for _kind in ("local", "curl", "streaming", "url", "curl option", "zip"):

    @case(f"OVERVIEW_FILE in scene.tif.aux.xml: {_kind}", *LOOKING)
    def _(place, kind=_kind):
        (place.folder / "scene.tif.aux.xml").write_text(aux("OVERVIEW_FILE", place.target(kind).replace("&", "&amp;")))

    if _kind not in ("local", "curl"):
        continue

    @case(f"OVERVIEW_FILE in scene.tif itself: {_kind}", *LOOKING)
    def _(place, kind=_kind):
        with rasterio.open(place.scene, "r+") as sink:
            sink.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=place.target(kind))


@case("OVERVIEW_FILE of a mask", *LOOKING)
def _(place):
    write_tiff(place.folder / "scene.tif.msk", np.full((1, *SIZE), 255, np.uint8))
    (place.folder / "scene.tif.msk.aux.xml").write_text(aux("OVERVIEW_FILE", place.target("local")))


@case("a coordinate system that is an address", "rasterize", *LOOKING)
def _(place):
    write_tiff(place.scene, noise(1, SIZE), transform=PLACE["transform"])
    url = f"http://{place.address}/crs.wkt"
    (place.folder / "scene.tif.aux.xml").write_text(f"<PAMDataset><SRS>{url}</SRS></PAMDataset>")


@case("an ERDAS side file", *LOOKING)
def _(place):
    (place.folder / "scene.aux").write_bytes(b"EHFA_HEADER_TAG\0" + bytes(200))


for _kind in ("local", "curl"):

    @case(f"a VRT named .tif: {_kind}", *LOOKING)
    def _(place, kind=_kind):
        place.scene.write_text(vrt(place.target(kind)))

    @case(f"a VRT named .tif, after blanks: {_kind}", *LOOKING)
    def _(place, kind=_kind):
        place.scene.write_text("\n" * 900 + vrt(place.target(kind)))

    @case(f"a VRT named .png: {_kind}", "predict png")
    def _(place, kind=_kind):
        (place.folder / "scene.png").write_text(vrt(place.target(kind)))

    @case(f"a VRT that is allowed, over what lies outside: {_kind}", "predict vrt", "compare vrt")
    def _(place, kind=_kind):
        (place.folder / "scene.vrt").write_text(vrt(place.target(kind)))

    @case(f"a VRT that is allowed, over a file with a mask: {_kind}", "predict vrt", "compare vrt")
    def _(place, kind=_kind):
        (place.folder / "scene.vrt").write_text(vrt("scene.tif", relative=1))
        (place.folder / "scene.tif.msk").write_text(vrt(place.target(kind), bands=1))

    @case(f"a VRT that is allowed, with overviews: {_kind}", "predict vrt", "compare vrt")
    def _(place, kind=_kind):
        more = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{place.target(kind)}</MDI></Metadata>'
        (place.folder / "scene.vrt").write_text(vrt("scene.tif", relative=1, more=more))

    @case(f"a VRT that is allowed, over a file with overviews: {_kind}", "predict vrt", "compare vrt")
    def _(place, kind=_kind):
        (place.folder / "scene.vrt").write_text(vrt("scene.tif", relative=1))
        with rasterio.open(place.scene, "r+") as sink:
            sink.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=place.target(kind))

    @case(f"a VRT that is allowed, over a VRT: {_kind}", "predict vrt")
    def _(place, kind=_kind):
        (place.folder / "scene.vrt").write_text(vrt("other.tif", relative=1))
        (place.folder / "other.tif").write_text(vrt(place.target(kind)))


@case("a VRT whose file name goes on after a comment", "predict vrt")
def _(place):
    outside = place.folder.parent / "secret"
    (outside / "secret.tif and more").mkdir()  # GDAL takes the text before the comment, ElementTree both parts
    (place.folder / "scene.vrt").write_text(vrt(f"{outside}/secret.tif<!-- --> and more/../../in/scene.tif"))


@case("a VRT said to be relative twice", "predict vrt")
def _(place):
    text = vrt("scene.tif", relative=1).replace('relativeToVRT="1"', 'relativetovrt="0" relativeToVRT="1"')
    (place.folder / "scene.vrt").write_text(text)


@case("a VRT with a source of another driver", "predict vrt")
def _(place):
    (place.folder / "NETCDF:scene.tif").write_bytes(place.scene.read_bytes())
    (place.folder / "scene.vrt").write_text(vrt("NETCDF:scene.tif", relative=1))


@case("a VRT of Python", "predict vrt")
def _(place):
    code = "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionType>x</PixelFunctionType>"
    text = vrt("scene.tif", relative=1, band=' subClass="VRTDerivedRasterBand"').replace(
        "<SimpleSource>", f"{code}<SimpleSource>"
    )
    (place.folder / "scene.vrt").write_text(text)


for _name, _text in {
    "a WMS": wms,
    "an algorithm of GDAL": lambda p: json.dumps(
        {"type": "gdal_streamed_alg", "command_line": f"gdal raster pipeline ! read {p.target('curl')} ! write x"}
    ),
    "a STAC": lambda p: json.dumps({"stac_version": "1.0.0", "assets": {"a": {"href": p.target("url")}}}),
    "a path": lambda p: p.target("curl"),
    "an address in ENVI": lambda p: f"ENVI\nsamples = 48\nlines = 40\ndata file = {p.target('curl')}\n",
}.items():

    @case(f"scene.tif that is {_name}", *LOOKING)
    def _(place, text=_text):
        place.scene.write_text(text(place))


def vectors(place, text, name="roofs.geojson"):
    (place.folder / name).write_text(text)


def collection(**members):
    shape = shapely.geometry.mapping(box(5, 5))
    feature = {"type": "Feature", "properties": {"kind": "x"}, "geometry": shape}
    return json.dumps({"type": "FeatureCollection", **members, "features": [feature]})


BURNING = ("rasterize", "evaluate", "polygons")
for _name, _crs in {
    "link": lambda p: {"type": "link", "properties": {"href": f"http://{p.address}/crs", "type": "proj4"}},
    "url": lambda p: {"type": "url", "properties": {"url": f"http://{p.address}/crs"}},
    "name": lambda p: {"type": "name", "properties": {"name": f"http://{p.address}/crs"}},
    "name of opengis": lambda p: {
        "type": "name",
        "properties": {"name": f"http://opengis.net.{p.address}/def/crs/EPSG/0/1"},
    },
    "file": lambda p: {"type": "name", "properties": {"name": str(p.secret)}},
}.items():

    @case(f"GeoJSON whose crs is a {_name}", *BURNING)
    def _(place, crs=_crs):
        vectors(place, collection(crs=crs(place)))


OGR_VRT = '<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>{}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>'
for _suffix in ("geojson", "gpkg", "shp", "fgb"):

    @case(f"a VRT of vectors named .{_suffix}", *(f"{verb} {_suffix}" for verb in BURNING))
    def _(place, suffix=_suffix):
        outside = place.secret.with_suffix(".geojson")
        vectors(place, OGR_VRT.format(outside if suffix != "shp" else place.target("curl")), f"roofs.{suffix}")


def geopackage(place):
    path = place.folder / "roofs.gpkg"
    wkb, options = shapely.to_wkb(np.array([box(5, 5)])), {"driver": "GPKG", "geometry_type": "Polygon"}
    pyogrio.raw.write(path, wkb, [np.array(["x"])], ["kind"], crs="EPSG:32633", **options)
    return path


VIEW = "CREATE VIEW v AS SELECT fid, geom, {} AS kind FROM roofs"
TELLING = """INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES ('v', 'features', 'v', 32633);
INSERT INTO gpkg_geometry_columns VALUES ('v', 'geom', 'POLYGON', 32633, 0, 0);
DELETE FROM gpkg_geometry_columns WHERE table_name = 'roofs'; DELETE FROM gpkg_contents WHERE table_name = 'roofs';"""
for _name, _value in {
    "file": "CAST(readfile('{secret}') AS TEXT)",
    "extension": "load_extension('{secret}')",
    "raster": "gdal_get_pixel_value('{secret}', 1, 'pixel', 7, 1)",
    "remote raster": "gdal_get_pixel_value('{curl}', 1, 'pixel', 7, 1)",
    "geocoder": "ogr_geocode('http://{address}')",
}.items():

    @case(f"a GeoPackage with a view of a {_name}", *(f"{verb} gpkg" for verb in BURNING))
    def _(place, value=_value):
        value = value.format(secret=place.secret, curl=place.target("curl"), address=place.address)
        with sqlite3.connect(geopackage(place)) as base:
            base.execute("PRAGMA trusted_schema = OFF")
            for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                base.execute(f'DROP TRIGGER "{name}"')
            base.executescript(VIEW.format(value) + ";" + TELLING)


@case("a GeoPackage whose coordinate system is an address", *(f"{verb} gpkg" for verb in BURNING))
def _(place):
    with sqlite3.connect(geopackage(place)) as base:
        text = f"http://{place.address}/crs"
        base.execute("UPDATE gpkg_spatial_ref_sys SET organization = 'x', definition = ? WHERE srs_id = 32633", (text,))


@case("a shapefile whose coordinate system is an address", "rasterize shp", "polygons shp")
def _(place):
    wkb, options = shapely.to_wkb(np.array([box(5, 5)])), {"driver": "ESRI Shapefile", "geometry_type": "Polygon"}
    pyogrio.raw.write(place.folder / "roofs.shp", wkb, [np.array(["x"])], ["kind"], crs="EPSG:32633", **options)
    (place.folder / "roofs.prj").write_text(f"http://{place.address}/crs.wkt")


for _name, _path in {
    "an address": lambda p: p.target("url"),
    "a GDAL name": lambda p: p.target("curl"),
    "a driver": lambda p: f"GTIFF_RAW:{p.secret}",
}.items():

    @case(f"dataset.yaml whose images are {_name}", "check", "evaluate dataset")
    def _(place, path=_path):
        text = f"classes: [a, b, c]\nsplits: {{val: {{images: '{path(place)}', labels: '{path(place)}'}}}}\n"
        (place.folder / "dataset.yaml").write_text(text)

    @case(f"COCO whose file_name is {_name}", "check")
    def _(place, path=_path):
        coco(place, path(place))


for _name in ("../secret/secret.png", "../secret/secret.tif", "./../secret/secret.png"):

    @case(f"COCO whose file_name is {_name}", "check")
    def _(place, name=_name):
        coco(place, name)


def coco(place, name):
    box_of = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    image = {"id": 1, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
    value = {"images": [image], "annotations": [box_of], "categories": [{"id": 1, "name": "a"}]}
    (place.folder / "objects.json").write_text(json.dumps(value))
    text = "task: detection\nclasses: [a]\nsplits: {train: {images: ., annotations: objects.json}}\n"
    (place.folder / "dataset.yaml").write_text(text)


def words(verb, place, model, out):
    """The command line of "predict", "predict png", ..."""
    verb, _, kind = verb.partition(" ")
    allow = ["--allow-vrt"] if kind == "vrt" else []
    scene = place.folder / (f"scene.{kind}" if kind in ("png", "vrt") else "scene.tif")
    field = ["--field", "kind"] if kind == "gpkg" else []
    roofs = place.folder / (f"roofs.{kind}" if kind in ("gpkg", "shp", "fgb") else "roofs.geojson")
    if (verb, kind) == ("evaluate", "dataset"):
        return ["evaluate", model, place.folder, "--no-boundary", "--out", out]
    return {
        "predict": lambda: ["predict", model, scene, "--out", out, *allow],
        "compare": lambda: ["compare", scene, "--prediction", scene, "--panel-size", 20, "--out", out, *allow],
        "rasterize": lambda: ["rasterize", roofs, place.folder / "scene.tif", "--out", out, *allow, *field],
        "polygons": lambda: ["polygons", roofs, out / "found.geojson", *field],
        "evaluate": lambda: ["evaluate", roofs, roofs, "--json", out / "numbers.json", *field],
        "check": lambda: ["check", place.folder, "--sheet", out / "sheet.png"],
    }[verb]()


def test_the_catalogue_is_long_enough():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_nobody_is_called_and_nothing_outside_is_shown(name, listener, model, tmp_path, capfd):
    make, verbs = CASES[name]
    listener.heard.clear()
    found = []
    for value in (0, 1):
        folder = tmp_path / str(value)
        place = Place(folder, listener.address, value)
        make(place)
        for verb in verbs:
            out = folder / f"out {verb}"
            out.mkdir()
            assert main([*map(str, words(verb, place, model, out))]) in (0, 1, 2), verb
        files = [file for out in folder.glob("out *") for file in out.rglob("*") if file.is_file()]
        told = {str(file.relative_to(folder)): file.read_bytes() for file in files}
        shown = capfd.readouterr()
        told["terminal"] = re.sub(r" in \d+\.\d s", "", shown.out + shown.err).encode()
        assert b"Traceback" not in told["terminal"]
        found.append({name: text.replace(str(folder).encode(), b"") for name, text in told.items()})
    assert found[0] == found[1]
    assert not listener.heard


@pytest.mark.parametrize("suffix", [".msk", ".ovr"])
def test_a_vrt_beside_a_raster_is_refused_and_a_tiff_is_read(suffix, tmp_path, listener):
    place = Place(tmp_path, listener.address, 0)
    side = place.folder / f"scene.tif{suffix}"
    side.write_text(vrt(place.target("local"), bands=1))
    with pytest.raises(FPNError, match=rf"scene\.tif\{suffix}: a side file of scene\.tif that is no TIFF but a VRT"):
        read_image(place.scene)
    side.unlink()
    write_tiff(side, np.full((1, *SIZE), 255, np.uint8))
    assert read_image(place.scene).size == SIZE
