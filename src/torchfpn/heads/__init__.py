"""Maps -> raw predictions. A head knows levels and classes, never targets or files."""
