"""Whether a folder can be written to, asked before the work and not after it."""

import tempfile
from pathlib import Path

from torchfpn.errors import ConfigError, WriteError
from torchfpn.files.atomic import make_directory
from torchfpn.files.formats import printable


def check_folder(folder: Path) -> None:
    """Makes `folder` where it is missing and passes it if files can be made in it.

    Raises:
        ConfigError: it cannot be, and why.
    """
    try:
        make_directory(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fpn-", suffix=".part") as probe:
            probe.write(b"0" * 4096)
            probe.flush()
    except OSError as error:
        reason = error.reason if isinstance(error, WriteError) else error.strerror or str(error)
        hint = error.hint if isinstance(error, WriteError) else None
        found = f"cannot be written to ({reason})"
        raise ConfigError(found, file=printable(folder), field="--out", hint=hint) from error
