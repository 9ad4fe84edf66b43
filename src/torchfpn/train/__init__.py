"""Training on Lightning, which is imported in this room and nowhere else."""

from torchfpn.nn.layers import check_torchvision

check_torchvision()  # before Lightning and timm stumble over a wrong pair of torch and torchvision in their own words
