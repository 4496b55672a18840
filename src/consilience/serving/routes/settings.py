"""The settings of the server, which are its config file."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from consilience.serving import drawer
from consilience.serving.access import Admin
from consilience.serving.requests import Strict
from consilience.serving.service import ServiceOf

router = APIRouter(tags=["settings"])

Value = bool | int | float | Annotated[str, Field(max_length=1000)] | None


class SettingsRequest(Strict):
    """Settings to change, by dotted key; null puts one back to its default."""

    values: Annotated[
        dict[Annotated[str, Field(max_length=100)], Value], Field(min_length=1, max_length=100)
    ]


@router.get("/v1/settings")
async def settings(_: Admin, service: ServiceOf) -> dict[str, Any]:
    """Show every setting with its value in effect, and the file that it is kept in."""
    return await service.work(drawer.shown, service)


@router.put("/v1/settings")
async def change_settings(
    body: SettingsRequest, subject: Admin, service: ServiceOf
) -> dict[str, Any]:
    """Change settings: all of them or, when one is wrong, none."""
    return await service.work(drawer.change, service, subject, body.values)
