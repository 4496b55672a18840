"""Keys: who may ask this server."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from consilience.serving.access import Admin
from consilience.serving.keys import NewKey, lifetime
from consilience.serving.requests import Strict
from consilience.serving.service import Service, ServiceOf

router = APIRouter(tags=["keys"])


class KeyRequest(Strict):
    """A key to be made."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Literal["read", "write", "admin"]], Field(min_length=1, max_length=3)]
    labels: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]] | None, Field(max_length=100)
    ] = None
    days: Annotated[float, Field(ge=0.001, le=36_500)] | None = None


@router.get("/v1/keys")
async def keys(_: Admin, service: ServiceOf) -> dict[str, Any]:
    """Show every key; the secrets are known to their holders only."""
    found = await service.work(service.keys.list)
    return {"keys": [key.to_dict() for key in found]}


@router.post("/v1/keys", status_code=201)
async def create_key(body: KeyRequest, _: Admin, service: ServiceOf) -> dict[str, Any]:
    """Make a key; its secret is shown here and never again."""
    made = await service.work(_made, service, body)
    return made.key.to_dict() | {"secret": made.secret}


@router.delete("/v1/keys/{id}")
async def revoke_key(
    id: str,  # noqa: A002 the field's name in every contract
    _: Admin,
    service: ServiceOf,
) -> dict[str, Any]:
    """End a key at once."""
    return (await service.work(service.keys.revoke, id)).to_dict()


def _made(service: Service, body: KeyRequest) -> NewKey:
    return service.keys.create(
        body.name, scopes=body.scopes, labels=body.labels, expires=lifetime(body.days)
    )
