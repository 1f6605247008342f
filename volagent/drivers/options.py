"""Decoding of a volume source into a driver's options: strict, with the field's name in errors."""

from typing import TypeVar

import msgspec

from volagent.drivers.contract import Options, VolumeSource
from volagent.drivers.errors import Rejected

AnyOptions = TypeVar("AnyOptions", bound=Options)


def decode_options(source: VolumeSource, options: type[AnyOptions]) -> AnyOptions:
    """The source as options of that type. Raises `Rejected` naming the field that does not fit."""
    try:
        return msgspec.convert(source.body, options)
    except msgspec.ValidationError as error:
        known = ", ".join(sorted(field.encode_name for field in msgspec.structs.fields(options)))
        raise Rejected(f"{source.kind}: {error}", remedy=f"fields of {source.kind}: {known}") from (
            error
        )
