"""An update as a parcel, where no sum hides it: whole, halved, or in a byte a number.

What rounding loses is not lost: it is kept on the party's disk and added to the next update of the
same name (error feedback; Seide et al. 2014, Karimireddy et al. 2019). Whole means exactly: where
a difference of two weights needs more digits than float32 has, the rest of it goes along in a
second number (Dekker, 1971), beside the places where there is one; few weights change so much. What
rounding loses is kept for good only
when the coordinator says that the update counted; until then the same update, sealed again, gives
the same parcel. Factors of a product begin anew in every round, so that what one of them lost
belongs to none of the next round's, and is dropped.

Whoever opens a parcel believes nothing: names, shapes, types, numbers and weight are looked at
before anything is made of them. This module does not know how updates become one.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from consilience.errors import ConsilienceError, DamagedError, UsageError
from consilience.federation.contracts import Orders, Update, Weights
from consilience.federation.durable import rename_whole, write_whole
from consilience.federation.parcels import Parcel

Precision = Literal["float32", "bfloat16", "int8"]

FIRST, SECOND = "//a", "//b"
"""What is behind the name of a weight whose change comes as a product: `change = b @ a`."""

MOST_CHANGE = 1e3
"""No weight of a sane model changes by more in a round."""

MOST_WEIGHT = 1e9
"""No party has more questions."""

_SCALE = "//scale"
_WHERE, _REST = "//where", "//rest"
_BESIDE = (_SCALE, _WHERE, _REST)
_LEAST_DIGIT = 2.0**-23  # of float32: no rest is a larger share of its number
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
_STEPS = 127  # of a byte with a sign, the same in both directions
_MOST_METRICS = 100
_LONGEST_NAME = 200  # characters, of a metric


@runtime_checkable
class Counting(Protocol):
    """A sealing that wants to know which of its updates counted."""

    def counted(self, run: str, round_: int) -> None:
        """The update of this round became part of the shared weights."""
        ...


class PlainSealing:
    """Updates that the coordinator reads.

    Args:
        precision: Of the numbers that leave.
        place: Folder of the party for this run.
    """

    def __init__(self, precision: Precision, place: Path) -> None:
        self.precision: Precision = precision
        self._kept, self._next = place / "rounding.safetensors", place / "rounding.next.safetensors"

    def seal(self, update: Update, orders: Orders) -> Parcel:
        """The update, rounded; what that loses is written down for the next.

        Raises:
            UsageError: It holds a number that is none.
        """
        _require_finite(update.delta)
        before = self._lost_before(orders.run)
        wanted = {name: value + before.get(name, 0) for name, value in update.delta.items()}
        tensors = rounded(wanted, self.precision)
        if self.precision != "float32":
            found = restored(tensors, self.precision)
            lost = {
                name: (value - found[name]).float()
                for name, value in wanted.items()
                if not name.endswith((FIRST, SECOND))
            }
            about = {"run": orders.run, "round": orders.round}
            write_whole(self._next, Parcel(about, {**before, **lost}).pack())
        return Parcel(self._about(update, orders), tensors)

    def counted(self, run: str, round_: int) -> None:
        """Keep for good what rounding lost in this round, if it was the newest sealed."""
        if not self._next.is_file():
            return
        about = Parcel.unpack(self._next.read_bytes()).about
        if (about["run"], about["round"]) == (run, round_):
            rename_whole(self._next, self._kept)

    def further(
        self,
        request: Parcel,  # noqa: ARG002 - of the protocol
        orders: Orders,
    ) -> Parcel:
        """There is nothing more to ask.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"round {orders.round} asks for a second message, which plain updates do not have",
            hint="coordinator and parties must agree on secure.sums",
        )

    def _lost_before(self, run: str) -> Weights:
        if not self._kept.is_file():
            return {}
        found = Parcel.unpack(self._kept.read_bytes())
        return found.tensors if found.about["run"] == run else {}

    def _about(self, update: Update, orders: Orders) -> dict[str, Any]:
        return {
            "form": "plain",
            "precision": self.precision,
            "run": orders.run,
            "round": orders.round,
            "weight": update.weight,
            "metrics": dict(update.metrics),
            "epsilon": update.epsilon,
            "seconds": update.seconds,
        }


def rounded(values: Weights, precision: Precision) -> dict[str, Tensor]:
    """Numbers as they travel.

    With float32 nothing is lost of numbers in float64 that two of float32 can hold. With int8, a
    row `x` becomes `round(x / s)` with one scale `s = max|x| / 127`, so that no number is off by
    more than `s / 2`. What has fewer than two dimensions is one row.

    Args:
        values: By name, float32 or float64, of any shape.
        precision: Of what comes back.

    Returns:
        Of the same shapes; with int8 `NAME//scale` beside each, float32, `[rows]`; with float32
        `NAME//where`, int32, and `NAME//rest`, float32, `[rests]`, beside those that have rests.
    """
    if precision == "float32":
        return dict(_two_terms(values))
    if precision == "bfloat16":
        return {name: value.to(torch.bfloat16) for name, value in values.items()}
    found = {}
    for name, value in values.items():
        rows = _rows(value.float())
        scale = rows.abs().amax(1) / _STEPS if value.numel() else rows.new_zeros(len(rows))
        steps = torch.where(scale[:, None] > 0, rows / scale[:, None], 0.0).round()
        found[name] = steps.clamp(-_STEPS, _STEPS).to(torch.int8).reshape(value.shape)
        found[name + _SCALE] = scale
    return found


def _two_terms(values: Weights) -> Iterator[tuple[str, Tensor]]:
    """Each number as the nearest of float32, and what is left of those that are none."""
    for name, value in values.items():
        near = value.float()
        yield name, near
        rest = (value.double() - near.double()).reshape(-1)
        where = rest.nonzero()[:, 0]
        if len(where):
            yield name + _WHERE, where.int()
            yield name + _REST, rest[where].float()


def restored(tensors: Weights, precision: Precision) -> dict[str, Tensor]:
    """The numbers that `rounded` stood for: float32, or float64 where there are rests."""
    plain = {name: value for name, value in tensors.items() if not name.endswith(_BESIDE)}
    if precision != "int8":
        return {name: _joined(value, name, tensors) for name, value in plain.items()}
    return {
        name: (_rows(value).float() * tensors[name + _SCALE][:, None]).reshape(value.shape)
        for name, value in plain.items()
    }


def _joined(value: Tensor, name: str, tensors: Weights) -> Tensor:
    if name + _REST not in tensors:
        return value.float()
    whole = value.double().reshape(-1)
    whole[tensors[name + _WHERE].long()] += tensors[name + _REST].double()
    return whole.reshape(value.shape)


def opened(parcel: Parcel, orders: Orders, shapes: Mapping[str, tuple[int, ...]]) -> Update:
    """The update in a parcel of a party that nobody vouches for.

    Args:
        parcel: What it sent.
        orders: Of the round.
        shapes: Of every shared weight.

    Returns:
        Its change by the names of the weights themselves: products are multiplied.

    Raises:
        DamagedError: It is of another round, or holds other names, shapes or types than it must,
            a number that is none or is beyond all bounds, or a weight that nobody can have. The
            message is the reason.
    """
    about = parcel.about
    if (about.get("run"), about.get("round")) != (orders.run, orders.round):
        raise _refused(
            f"an update of round {about.get('round')!r} of run {about.get('run')!r} is a replay in "
            f"round {orders.round} of run {orders.run!r}"
        )
    precision = _precision(about)
    wanted = {name: shapes[name] for name in orders.moving}
    _require_tensors(parcel.tensors, wanted, precision)
    delta = multiplied(restored(parcel.tensors, precision))
    _require_bounds(delta)
    return Update(delta, *_told(about))


def multiplied(values: Weights) -> dict[str, Tensor]:
    """Changes by name, with those that come as two factors multiplied (FLoRA, Wang et al. 2024).

    Args:
        values: `NAME` of any shape, or `NAME//a`, `[r, in]`, and `NAME//b`, `[out, r]`.

    Returns:
        `NAME`, of the shape `[out, in]` where it was a product.
    """
    found = {name: value for name, value in values.items() if not name.endswith((FIRST, SECOND))}
    for name in values:
        if name.endswith(FIRST):
            whole = name.removesuffix(FIRST)
            found[whole] = values[whole + SECOND] @ values[name]
    return found


def _precision(about: Mapping[str, Any]) -> Precision:
    form, found = about.get("form"), about.get("precision")
    known: dict[Any, Precision] = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8"}
    if form != "plain" or not isinstance(found, str) or found not in known:
        raise _refused(f"an update in the form {form!r}, precision {found!r}")
    return known[found]


def _require_tensors(
    tensors: Weights, wanted: Mapping[str, tuple[int, ...]], precision: Precision
) -> None:
    plain = {name: tensors[name] for name in tensors if not name.endswith(_BESIDE)}
    names = {name.removesuffix(FIRST).removesuffix(SECOND) for name in plain}
    if other := sorted(names ^ set(wanted)):
        words = "names that were not asked for" if other[0] in names else "no change of"
        raise _refused(f"{words}: {', '.join(other[:3])}")
    for name, shape in wanted.items():
        _require_shape(name, shape, plain)
    for name, value in plain.items():
        if value.dtype != _TYPES[precision]:
            raise _refused(f"{name} holds {value.dtype}, not {precision}")
    _require_scales(tensors, plain, precision)
    _require_rests(tensors, plain, precision)


def _require_shape(name: str, shape: tuple[int, ...], plain: Weights) -> None:
    first, second = plain.get(name + FIRST), plain.get(name + SECOND)
    if (whole := plain.get(name)) is not None:
        if first is not None or second is not None:
            raise _refused(f"{name} comes twice")
        if tuple(whole.shape) != shape:
            raise _refused(f"{name} has the shape {tuple(whole.shape)}, not {shape}")
        return
    if first is None or second is None:
        raise _refused(f"{name} comes as one factor of two")
    sizes = tuple(second.shape), tuple(first.shape)
    if first.dim() != 2 or second.dim() != 2 or first.shape[0] != second.shape[1]:
        raise _refused(f"{name} comes as factors {sizes}, which have no product")
    if (second.shape[0], first.shape[1]) != shape:
        raise _refused(f"{name} comes as factors {sizes}, whose product is not {shape}")


def _require_scales(tensors: Weights, plain: Weights, precision: Precision) -> None:
    scales = {name: tensors[name] for name in tensors if name.endswith(_SCALE)}
    wanted = {name + _SCALE for name in plain} if precision == "int8" else set()
    if set(scales) != wanted:
        raise _refused("other scales than numbers in a byte need")
    for name, value in plain.items() if scales else ():
        scale = scales[name + _SCALE]
        if scale.dtype != torch.float32 or tuple(scale.shape) != (len(_rows(value)),):
            raise _refused(f"{name} has scales {tuple(scale.shape)} of {scale.dtype}")
        if not bool((scale >= 0).all()):
            raise _refused(f"{name} has a scale that is no size")


def _require_rests(tensors: Weights, plain: Weights, precision: Precision) -> None:
    places = {name.removesuffix(_WHERE) for name in tensors if name.endswith(_WHERE)}
    rests = {name.removesuffix(_REST) for name in tensors if name.endswith(_REST)}
    allowed = plain.keys() if precision == "float32" else set()
    if places != rests or not rests <= allowed:
        raise _refused("rests of other numbers than were sent")
    for name in rests:
        where, rest = tensors[name + _WHERE], tensors[name + _REST]
        _require_places(name, where, rest, plain[name].numel())
        near = plain[name].reshape(-1)[where.long()].double().abs()
        if not bool((rest.double().abs() <= near * _LEAST_DIGIT).all()):
            raise _refused(f"{name} has rests that are larger than its last digit")


def _require_places(name: str, where: Tensor, rest: Tensor, count: int) -> None:
    """Each place once, in order, and inside."""
    if (where.dtype, rest.dtype) != (torch.int32, torch.float32):
        raise _refused(f"{name} has rests of {rest.dtype} at places of {where.dtype}")
    if where.dim() != 1 or where.shape != rest.shape:
        raise _refused(f"{name} has {tuple(rest.shape)} rests at {tuple(where.shape)} places")
    ordered = bool((where[1:] > where[:-1]).all())
    if not ordered or (len(where) and not 0 <= int(where[0]) <= int(where[-1]) < count):
        raise _refused(f"{name} has rests at places that it does not have")


def _require_bounds(delta: Weights) -> None:
    for name, value in delta.items():
        if not bool(value.isfinite().all()):
            raise _refused(f"{name} holds a number that is not finite")
        if value.numel() and (most := float(value.abs().max())) > MOST_CHANGE:
            raise _refused(f"{name} changes by {most:.3g}, at most {MOST_CHANGE:g} is believed")


def _require_finite(delta: Weights) -> None:
    for name, value in delta.items():
        if not bool(value.isfinite().all()):
            raise UsageError(
                f"the change of {name} holds a number that is not finite",
                hint="lower learning_rate in the recipe",
            )


def _told(about: Mapping[str, Any]) -> tuple[float, dict[str, float], float | None, float]:
    """Weight, metrics, epsilon and seconds, each believed only as far as it can be true."""
    weight = _number(about.get("weight"), "its weight")
    if not 0 < weight <= MOST_WEIGHT:
        raise _refused(f"its weight is {weight:g}, which is no number of questions")
    metrics = about.get("metrics")
    if not isinstance(metrics, dict) or not 1 <= len(metrics) <= _MOST_METRICS:
        raise _refused("it tells no metrics")
    if (longest := max(map(len, metrics))) > _LONGEST_NAME:
        raise _refused(f"the name of a metric has {longest} characters")
    told = {str(name): _number(value, f"its {str(name)[:40]!r}") for name, value in metrics.items()}
    if "loss" not in told:
        raise _refused("it tells no loss")
    epsilon = about.get("epsilon")
    if epsilon is not None and (epsilon := _number(epsilon, "its epsilon")) < 0:
        raise _refused(f"its epsilon is {epsilon:g}")
    return weight, told, epsilon, _number(about.get("seconds"), "its seconds")


def _number(found: Any, what: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not _finite(found):
        raise _refused(f"{what} is no finite number")
    return float(found)


def _finite(found: float) -> bool:
    try:
        return math.isfinite(found)
    except OverflowError:  # an int that no float holds
        return False


def _rows(value: Tensor) -> Tensor:
    """As rows of numbers, `[rows, n]`."""
    return value.flatten(1) if value.dim() > 1 else value.reshape(1, -1)


def _refused(reason: str) -> ConsilienceError:
    return DamagedError(reason, hint="this update does not count; look at the party's own log")
