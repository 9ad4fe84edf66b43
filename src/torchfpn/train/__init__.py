"""Training: the loop on Lightning, checkpoints, logs, and the run folder. Lightning is imported in this room alone."""

from torchfpn.nn.layers import check_torchvision

check_torchvision()  # before Lightning and timm stumble over a wrong pair of torch and torchvision in their own words
