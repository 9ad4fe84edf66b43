"""Which files are vector files, told by their suffix; imports nothing, so that settings can be read without GDAL."""

from pathlib import PurePath

DRIVERS = {
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".geojsonl": "GeoJSON",  # a feature on each line
    ".geojsons": "GeoJSON",
    ".ndjson": "GeoJSON",
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".shp": "ESRI Shapefile",
}
SUFFIXES = tuple(DRIVERS)


def is_vector(path: str | PurePath) -> bool:
    """Whether the name is that of a vector file."""
    return str(path).lower().endswith(SUFFIXES)
