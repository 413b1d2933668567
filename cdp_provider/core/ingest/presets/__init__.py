# SPDX-License-Identifier: Apache-2.0
"""Ready-made streams of vendors: one YAML file per vendor, in the words of a project file.

:data:`PRESETS` maps a preset's name, which is its file's, to what the file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

from cdp_provider.core.project.document import Document
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.presets import Preset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_SUFFIX = ".yaml"


class _Presets(Mapping[str, Preset]):
    """Read when asked for: most projects name one of them or none.

    :raises ProjectError: a file holds a key twice, or is no YAML.
    """

    def __init__(self) -> None:
        self._read: dict[str, Preset] = {}

    def __getitem__(self, name: str) -> Preset:
        if name not in self._read:
            self._read[name] = _read(self._files[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @cached_property
    def _files(self) -> dict[str, Traversable]:
        found = (file for file in files(__name__).iterdir() if file.name.endswith(_SUFFIX))
        return {file.name.removesuffix(_SUFFIX): file for file in sorted(found, key=lambda file: file.name)}


def _read(file: Traversable) -> Preset:
    document = Document(file.read_text("utf-8"), file.name)
    if document.faults:
        raise ProjectError(document.faults)
    return Preset.model_validate(document.value)


PRESETS: Mapping[str, Preset] = _Presets()

__all__ = ["PRESETS"]
