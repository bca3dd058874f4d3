"""The numbers beside a result, as far as they are what they should be.

They come from a service or from a file, which may be newer, damaged or not what it says it is: a member of
the wrong kind counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

Count = Annotated[int, Field(strict=True, ge=0)]
Length = Annotated[float, Field(allow_inf_nan=False)]
Point = tuple[Length, Length, Length]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _or_absent(cls, value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return check(value)
        except ValidationError:
            return cls.model_fields[info.field_name or ""].get_default(call_default_factory=True)

    @classmethod
    def of(cls, raw: object) -> Self:
        """What of `raw` can be used."""
        return cls.model_validate(raw if isinstance(raw, Mapping) else {})


class SheetLayout(BaseModel):
    """The sheet of stills: a row a render mode, `views` pictures of `size` pixels in it."""

    modes: list[str] = Field(min_length=1, max_length=32)
    views: int = Field(ge=1, le=360)
    size: int = Field(ge=1, le=8192)


class AssetStats(_Lenient):
    """Of a generation. `seconds` is by stage."""

    seconds: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    voxels: Count | None = None
    preview: SheetLayout | None = None
    warnings: list[str] = []


class Costs(_Lenient):
    """What a result used: accelerator seconds of all attempts, and their price if there is a rate."""

    gpu_seconds: Amount | None = None
    price: Amount | None = None
    currency: str = ""

    @classmethod
    def of_all(cls, *stats: Mapping[str, Any]) -> Costs:
        """Of several results together; what one of them lacks, the sum lacks too."""
        found = [cls.of(raw) for raw in stats]

        def total(amounts: list[float | None]) -> float | None:
            known = [amount for amount in amounts if amount is not None]
            return round(sum(known), 4) if known and len(known) == len(amounts) else None

        return cls(
            gpu_seconds=total([costs.gpu_seconds for costs in found]),
            price=total([costs.price for costs in found]),
            currency=found[0].currency if found else "",
        )


class ExportReport(_Lenient):
    """Of an exported file (see `o_voxel.postprocess.MeshReport`). `size` is by format, with its unit."""

    faces: Count | None = None
    vertices: Count | None = None
    components: Count | None = None
    source_faces: Count | None = None
    watertight: bool | None = None
    boundary_edges: Count = 0
    non_manifold_edges: Count = 0
    inside_out: Share | None = None
    size: dict[str, tuple[list[Length], str]] = {}
    bounding_box: tuple[Point, Point] | None = None
    solid: dict[str, dict[str, Length]] = {}
    textures: dict[str, tuple[Count, Count]] = {}
    alpha_mode: str | None = None
    notes: list[str] = []
