# SPDX-License-Identifier: Apache-2.0
"""What is known of a vendor's streams before a project says anything: keys that its own are laid over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field

from cdp_provider.core.project.base import Model, Name, Options
from cdp_provider.core.project.problems import Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

OptionsOf: TypeAlias = type[Options] | None


class Preset(Model):
    """Streams of one vendor, in the words of a project file.

    Only its own shape is checked here: its streams are checked where they meet those of a project.

    :param type: the kind of source that it belongs to; several where the same streams come in several ways.
    :param about: the vendor and its API, in a sentence.
    :param connection: what goes into the Airflow connection: ``host`` and extras, never a secret.
    :param defaults: keys of all streams, those too that only the project knows.
    :param streams: name -> keys of the stream.
    """

    type: str | tuple[str, ...]
    about: str
    connection: dict[str, Any]
    defaults: dict[str, Any] = Field(default_factory=dict)
    streams: dict[Name, dict[str, Any]] = Field(min_length=1)

    @property
    def types(self) -> tuple[str, ...]:
        """The kinds of source that it fits."""
        return (self.type,) if isinstance(self.type, str) else self.type

    def under(
        self, name: str, given: Mapping[str, Any], options: OptionsOf, kept: Collection[str] | None
    ) -> dict[str, Any]:
        """The keys of a stream: those `given`, then the preset's of its name, then those of all streams.

        Mappings are merged key by key, one level deep. Those whose ``type`` decides about their other keys
        are replaced as a whole. A key given as null takes the preset's away.

        :param options: of the source's type, if there is such a type.
        :param kept: identifier types that the project has; the preset's others are left out. None: all count.
        """
        whole = _chosen_by_type(options)
        known = _over(self.defaults, self.streams.get(name, {}), whole)
        if kept is not None and "identifiers" in known:
            known["identifiers"] = {kind: of for kind, of in known["identifiers"].items() if kind in kept}
        return _over(known, given, whole)


def chosen(source: Mapping[str, Any], presets: Mapping[str, Preset]) -> Preset | Problem | None:
    """The preset that a source names, or what is wrong with that; None where it names none."""
    name, kind = source.get("preset"), source.get("type")
    if not isinstance(name, str):
        return None
    if name not in presets:
        return Problem(("preset",), f"there is no preset {name!r}", did_you_mean(name, presets))
    preset = presets[name]
    if isinstance(kind, str) and kind not in preset.types:
        fitting = " or ".join(map(repr, preset.types))
        message = f"the preset {name!r} is for sources of type {fitting}, not {kind!r}"
        return Problem(("type",), message, f"write 'type: {preset.types[0]}'")
    return preset


def _chosen_by_type(options: OptionsOf) -> frozenset[str]:
    """Keys whose value is one of several models, as paging is."""
    fields = options.model_fields if options else {}
    return frozenset(field.alias or name for name, field in fields.items() if field.discriminator)


def _over(below: Mapping[str, Any], above: Mapping[str, Any], whole: Collection[str]) -> dict[str, Any]:
    merged = _without_taken(below, above)
    for key, value in above.items():
        under = below.get(key)
        if isinstance(value, dict) and isinstance(under, dict) and key not in whole:
            merged[key] = _without_taken(under, value)
    return merged


def _without_taken(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    return {key: value for key, value in both.items() if value is not None or key not in below}
