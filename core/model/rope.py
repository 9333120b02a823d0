"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and its context extensions.

Each rotated pair of dimensions ``(x_i, x_{i + dim/2})`` of a query or key at position ``p`` turns by ``p * f_i``, with
``f_i = theta ** (-2i / dim)``. The extensions change the frequencies ``f`` or multiply cos and sin by a constant.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from nlpkit.core.errors import ConfigError
from nlpkit.core.model.config import RopeConfig


def _plain(theta: float, dim: int) -> Tensor:
    return 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))


def _llama3(rope: RopeConfig, dim: int) -> Tensor:
    """Llama 3.1's bands: long waves are stretched by `factor`, short ones kept, those between interpolated."""
    base = _plain(rope.theta, dim)
    original = float(rope.original_max_seq_len or 8192)
    wavelength = 2 * math.pi / base
    smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - smooth) * base / rope.factor + smooth * base
    stretched = torch.where(wavelength > original / rope.low_freq_factor, base / rope.factor, base)
    medium = (wavelength >= original / rope.high_freq_factor) & (wavelength <= original / rope.low_freq_factor)
    return torch.where(medium, blended, stretched)


def _yarn_magnitude(scale: float, mscale: float = 1.0) -> float:
    return 1.0 if scale <= 1 else 0.1 * mscale * math.log(scale) + 1.0


def _yarn(rope: RopeConfig, dim: int, max_seq_len: int) -> tuple[Tensor, float]:
    """YaRN (Peng et al. 2023, arXiv:2309.00071): NTK-by-parts with a ramp between two rotation counts."""
    original = rope.original_max_seq_len or max_seq_len
    if rope.attention_factor is not None:
        magnitude = rope.attention_factor
    elif rope.mscale and rope.mscale_all_dim:
        magnitude = _yarn_magnitude(rope.factor, rope.mscale) / _yarn_magnitude(rope.factor, rope.mscale_all_dim)
    else:
        magnitude = _yarn_magnitude(rope.factor)

    def dimension_at(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension_at(rope.beta_fast), dimension_at(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = torch.clamp((torch.arange(dim // 2).float() - low) / max(high - low, 0.001), 0, 1)
    base = _plain(rope.theta, dim)
    return base / rope.factor * ramp + base * (1 - ramp), magnitude


def inverse_frequencies(rope: RopeConfig, *, dim: int, max_seq_len: int, seq_len: int) -> tuple[Tensor, float]:
    """Return the frequencies of one rotary setting and the multiplier on cos and sin.

    Args:
        rope: The setting.
        dim: Rotated dimensions per head, even.
        max_seq_len: The model's longest context, in tokens.
        seq_len: Length of the sequence at hand; only dynamic scaling and LongRoPE look at it.

    Returns:
        Frequencies in radians per position, shape ``(dim / 2,)`` in fp32, and the multiplier.

    Raises:
        ConfigError: A factor list has the wrong length.
    """
    if rope.scaling == "linear":
        return _plain(rope.theta, dim) / rope.factor, 1.0
    if rope.scaling == "dynamic":
        original = rope.original_max_seq_len or max_seq_len
        length = max(seq_len, original)
        theta = rope.theta * ((rope.factor * length / original) - (rope.factor - 1)) ** (dim / (dim - 2))
        return _plain(theta, dim), 1.0
    if rope.scaling == "llama3":
        return _llama3(rope, dim), 1.0
    if rope.scaling == "yarn":
        return _yarn(rope, dim, max_seq_len)
    if rope.scaling in ("longrope", "factors"):
        original = rope.original_max_seq_len or max_seq_len
        long = rope.scaling == "longrope" and seq_len > original
        factors = rope.long_factor if long else rope.short_factor
        if len(factors) != dim // 2:
            raise ConfigError(
                f"The rotary embedding needs {dim // 2} factors, one a pair; the model has {len(factors)}."
            )
        magnitude = 1.0
        if rope.attention_factor is not None:
            magnitude = rope.attention_factor
        elif rope.scaling == "longrope":
            # Where the file names no factor, it is the stretch of the context.
            stretch = rope.factor if rope.factor != 1.0 else max_seq_len / original
            magnitude = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
        return _plain(rope.theta, dim) / torch.tensor(factors, dtype=torch.float32), magnitude
    return _plain(rope.theta, dim), 1.0


def sequence_lengths(positions: Tensor) -> Tensor:
    """Return how long the sequence of each token is, where rows hold one sequence or several behind one another.

    Args:
        positions: Shape ``(batch, seq)``; a sequence ends where the next position is not the one that follows.

    Returns:
        One more than the last position of the token's sequence, same shape.
    """
    begins = torch.ones_like(positions)
    begins[:, 1:] = positions[:, 1:] != positions[:, :-1] + 1
    run = begins.cumsum(-1) - 1
    longest = torch.zeros_like(positions).scatter_reduce(-1, run, positions + 1, "amax")
    return longest.gather(-1, run)


class Rotary:
    """Cos and sin of one rotary setting, tabulated as far as needed.

    Dynamic scaling and LongRoPE depend on the length of each sequence: tokens of one beyond the original context get
    its own frequencies, so that a sequence never depends on its neighbours. Which length counts while a sequence grows
    is `nlpkit.core.model.growing`'s concern.
    """

    def __init__(self, rope: RopeConfig, *, head_dim: int, max_seq_len: int) -> None:
        self.rope = rope
        self.dim = rope.dim or head_dim
        self.max_seq_len = max_seq_len
        self._table: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._lengths: Tensor | None = None
        self._base_len = rope.length_border(max_seq_len)

    def of_lengths(self, lengths: Tensor) -> Rotary:
        """Return this setting for sequences of the given lengths.

        Args:
            lengths: Length of the sequence of each token that `cos_sin` will be asked for; shape as its positions.
        """
        if self._base_len is None:
            return self
        other = copy.copy(self)
        other._lengths = lengths
        return other

    def _build(self, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        base = self._base_len
        frequencies, magnitude = inverse_frequencies(
            self.rope, dim=self.dim, max_seq_len=self.max_seq_len, seq_len=min(length, base or length)
        )
        angles = torch.outer(torch.arange(length).float(), frequencies)
        angles = torch.cat((angles, angles), -1)
        return (angles.cos() * magnitude).to(device, dtype), (angles.sin() * magnitude).to(device, dtype)

    def cos_sin(self, positions: Tensor, *, longest: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cos and sin for each position.

        Args:
            positions: Shape ``(batch, seq)``, whole numbers from 0.
            longest: One more than the largest position.
            dtype: Dtype of the result.

        Returns:
            Two tensors of shape ``(batch, 1, seq, dim)``.
        """
        key = (positions.device, dtype)
        table = self._table.get(key)
        if table is None or table[0].shape[0] < longest:
            table = self._build(max(longest, 256, 2 * (table[0].shape[0] if table else 0)), *key)
            self._table[key] = table
        cos, sin = table[0][positions].unsqueeze(1), table[1][positions].unsqueeze(1)
        base = self._base_len
        if base is None or (self._lengths is None and longest <= base):
            return cos, sin
        lengths = sequence_lengths(positions) if self._lengths is None else self._lengths
        beyond = lengths[lengths > base]
        if beyond.numel():
            cos, sin = cos.clone(), sin.clone()
            # LongRoPE knows one set of frequencies beyond the border, dynamic scaling one for each length.
            values = sorted(set(beyond.tolist())) if self.rope.scaling == "dynamic" else [base + 1]
            for length in values:
                chosen = (lengths == length if self.rope.scaling == "dynamic" else lengths > base).nonzero(
                    as_tuple=True
                )
                frequencies, magnitude = inverse_frequencies(
                    self.rope, dim=self.dim, max_seq_len=self.max_seq_len, seq_len=length
                )
                angles = positions[chosen].float()[:, None] * frequencies.to(positions.device)
                angles = torch.cat((angles, angles), -1)
                cos[chosen[0], 0, chosen[1]] = (angles.cos() * magnitude).to(dtype)
                sin[chosen[0], 0, chosen[1]] = (angles.sin() * magnitude).to(dtype)
        return cos, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head's leading dimensions by its position's angles.

    Args:
        x: Queries or keys, shape ``(batch, heads, seq, head_dim)``.
        cos: Shape ``(batch, 1, seq, dim)`` with ``dim <= head_dim``.
        sin: Same shape.

    Returns:
        Same shape as `x`; dimensions beyond ``dim`` pass unchanged.
    """
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :dim], cos, sin), x[..., dim:]), -1)
    half = dim // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin
