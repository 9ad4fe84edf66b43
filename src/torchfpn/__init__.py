"""torchfpn."""
