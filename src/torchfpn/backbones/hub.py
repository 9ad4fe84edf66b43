"""Published weights: their name, the place of their local copy, and how to ask the model hub without waiting."""

import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch
from urllib.parse import urlsplit

import huggingface_hub.constants as hub
from huggingface_hub import try_to_load_from_cache

from torchfpn.errors import WeightsError

LONGEST = 120  # characters of a library's message in ours
IMAGENET = re.compile(r"imagenet|in(?:1|12|21|22)k", re.IGNORECASE)


class Published(NamedTuple):
    """Weights that a library publishes.

    name: "timm/resnet50.a1_in1k", "torchvision's ResNet50_Weights.IMAGENET1K_V2". how: what to do on a machine with a
    network, and where the file goes. file: the local copy; None without one.
    """

    name: str
    how: str
    file: Path | None

    def __str__(self) -> str:
        return f"{'ImageNet' if IMAGENET.search(self.name) else 'published'}, from {self.name}"


def hub_file(repository: str, names: tuple[str, ...]) -> Path | None:
    """The local copy of the first of these files of a repository of the model hub; asks no network."""
    for name in names:
        found = try_to_load_from_cache(repository, name, cache_dir=hub.HF_HUB_CACHE)
        if isinstance(found, str):
            return Path(found)
    return None


def unavailable(backbone: str, weights: Published | None, error: Exception | None = None) -> WeightsError:
    """What to raise where published weights cannot be had, with the ways to go on. error: what the library said."""
    other = "pretrained=False (--model.pretrained false) starts from random weights"
    if weights is None:
        hint = f"give a file, pretrained=FILE (--model.pretrained FILE); {other}"
        return WeightsError(f"no pretrained weights of {backbone} are published", field="pretrained", hint=hint)
    if weights.file is not None:
        found = f"the local copy of {weights.name} cannot be loaded ({' '.join(str(error).split())[:LONGEST]})"
        return WeightsError(found, file=weights.file, hint=f"delete it, it is downloaded again; {other}")
    return WeightsError(
        f"the pretrained weights of {backbone} could not be downloaded",
        field="pretrained",
        hint=f"{weights.how}; or give a local file, pretrained=FILE (--model.pretrained FILE); {other}",
    )


@contextmanager
def offline() -> Iterator[None]:
    """Inside, the hub client takes what is in its cache and asks no network."""
    with patch.object(hub, "HF_HUB_OFFLINE", True):
        yield


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Inside, the hub client is offline when the hub's name cannot be resolved (a proxy resolves for itself).

    Without this the client tries each file six times with growing pauses, most of a minute, before it says so.
    """
    if urllib.request.getproxies() or _resolves(urlsplit(hub.ENDPOINT).hostname or ""):
        yield
        return
    with offline():
        yield


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
