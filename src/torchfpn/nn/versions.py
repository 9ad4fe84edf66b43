"""Do torch and torchvision fit each other? They are built in pairs, and a wrong pair fails in riddles."""

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from torchfpn.errors import FPNError

TORCH = re.compile(r"torch\s*\(?\s*([=<>~!][^;)\s]*)")  # "torch==2.15.0", "torch (>=2.14.0)"


def check_torchvision() -> None:
    """Imports torchvision.

    Raises:
        FPNError: it does not go with the torch that is installed; both versions and the cure are named.
    """
    try:
        import_module("torchvision")
    except (RuntimeError, ImportError, AttributeError) as error:
        raise FPNError(
            f"torchvision {_version('torchvision')} does not go with torch {_version('torch')} ({_line(error)})",
            allowed=_wanted(),
            hint="install both from one place: pip install --upgrade --force-reinstall torch torchvision",
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _wanted() -> str | None:
    """The torch that torchvision's own metadata ask for."""
    try:
        needs = [TORCH.match(line) for line in requires("torchvision") or ()]
    except PackageNotFoundError:
        return None
    return next((f"it was built for torch {need[1]}" for need in needs if need), None)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
