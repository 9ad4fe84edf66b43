"""What a training or an evaluation looks like: pictures, curves, tables, one self-contained report.html."""
