"""Drawing tokens: inverse transform of the sorted distribution, one stream of draws a sample.

Sample `i` draws from a generator made of the seed and `i` alone, on the processor whatever the
device, one number a token. So what is drawn for a question depends neither on the other questions
nor on their order, and the first of three samples is the one that would have been drawn alone.
"""

from hashlib import blake2b

import torch
from torch import Tensor

from consilience.model.decoding.options import DecodingOptions
from consilience.model.placing import in_float64


class Draws:
    """Streams of uniform numbers.

    Args:
        options: Names the seed and how many samples there are.
    """

    def __init__(self, options: DecodingOptions) -> None:
        self._streams = [_stream(options.seed, sample) for sample in range(options.returned)]

    def next(self) -> Tensor:
        """The next number of every stream, in [0, 1), `[samples]`, float64, on the processor."""
        drawn = [torch.rand((), dtype=torch.float64, generator=one) for one in self._streams]
        return torch.stack(drawn)


def _stream(seed: int, sample: int) -> torch.Generator:
    digest = blake2b(f"{seed}/{sample}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(values: Tensor, uniform: Tensor, options: DecodingOptions) -> Tensor:
    """The place of the token drawn.

    `p ** (1 / temperature)`, cut to the fewest tokens that hold `top_p` of it (Holtzman et al.,
    2020), and then the first place at which the running sum passes `u` times the whole.

    Args:
        values: Probabilities up to a factor, greatest first, `[s, n, m]`.
        uniform: In [0, 1), `[s, n]`, float64, on the processor.
        options: Temperature and top_p; `top_k` has cut `values` already.

    Returns:
        `[s, n]`, where `values` are.
    """
    exact = in_float64(values)
    uniform = uniform.to(exact.device)
    tempered = (exact / exact[..., :1]) ** (1.0 / options.temperature)
    sums = tempered.cumsum(-1)
    nucleus = (sums - tempered) < options.top_p * sums[..., -1:]
    held = nucleus & (tempered > 0)
    whole = (tempered * held).sum(-1, keepdim=True)
    place = torch.searchsorted(sums, uniform[..., None] * whole, right=True)[..., 0]
    return place.minimum(held.sum(-1) - 1).to(values.device)
