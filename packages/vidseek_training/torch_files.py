"""Files that torch wrote, read without running code and without unpacking more than they hold."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch


def read_torch(path: Path) -> dict[str, Any]:
    """Return the mapping that `torch.save` wrote: tensors and plain values by name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is broken, holds something else, or is packed: torch stores plainly, and a packed file may unpack to
            any size.
    """
    try:
        if zipfile.is_zipfile(path):
            _require_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # where a broken pickle leads it
        raise ValueError(str(error) or repr(error)) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"it holds a {type(content).__name__}, wanted a mapping by name")
    return content


def _require_stored(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
    if any(each.compress_type != zipfile.ZIP_STORED for each in members):
        raise ValueError("its members are packed, wanted them stored")
    if sum(each.file_size for each in members) > path.stat().st_size:
        raise ValueError("its members are larger than the file")
