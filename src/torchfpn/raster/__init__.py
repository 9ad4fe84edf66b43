"""Files in, maps out: prediction of images and rasters, polygons of what was found."""
