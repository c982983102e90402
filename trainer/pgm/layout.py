"""Where the tokens of a batch lie: all modalities and samples in one flat (T, D) matrix; token-wise layers run once.

Legend: B samples, M modalities, R = M * B rows (modality-major), S longest sample, T flat tokens, C width.
Decided: a modality keeps its padding when it has little of it and is packed (only its real tokens) when it has much; a
modality whose samples are all full needs neither mask nor index. Attention unpacks to (rows, S, C), per group of
neighbouring modalities of equal S. Cost: packing needs the number of real tokens on the host (one synchronisation a
modality on a GPU) and is left out while a graph is traced, where the padded form computes the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Gathering costs about a tenth of a block on two cores: lighter padding is cheaper to compute than to remove.
PACK_BELOW = 0.9


@dataclass(frozen=True)
class Bucket:
    """Rows of equal padded length S: one modality, or several neighbouring ones.

    mask is None when every token is real; index holds the flat positions of the real tokens when the bucket is packed.
    """

    rows: int
    length: int
    mask: Bool[Tensor, "R S"] | None
    index: Int[Tensor, " T"] | None

    @property
    def tokens(self) -> int:
        return self.rows * self.length if self.index is None else self.index.shape[0]

    @cached_property
    def row_of_token(self) -> Int[Tensor, " T"]:
        assert self.index is not None
        return self.index // self.length

    @cached_property
    def weights(self) -> Float[Tensor, "R S"]:
        """1 / (number of real tokens) at the real tokens: the row average as a product."""
        assert self.mask is not None
        return self.mask / self.mask.sum(1, keepdim=True).clamp(min=1)

    def unpack(self, flat: Float[Tensor, "T C"]) -> Float[Tensor, "R S C"]:
        """To rows; padding is zero in a packed bucket and unspecified in a padded one."""
        if self.index is not None:
            flat = flat.new_zeros(self.rows * self.length, flat.shape[1]).index_add(0, self.index, flat)
        return flat.view(self.rows, self.length, flat.shape[1])

    def pack(self, rows: Float[Tensor, "R S C"]) -> Float[Tensor, "T C"]:
        flat = rows.reshape(self.rows * self.length, rows.shape[2])
        return flat if self.index is None else flat.index_select(0, self.index)

    def padded(self, flat: Float[Tensor, "T C"]) -> Float[Tensor, "R S C"]:
        """To rows with zeros in the padding."""
        rows = self.unpack(flat)
        return rows if self.mask is None or self.index is not None else rows * self.mask.unsqueeze(2).to(rows.dtype)

    def spread(self, rows: Float[Tensor, "R C"]) -> Float[Tensor, "T C"]:
        """A row's values, repeated at each of its tokens."""
        if self.index is not None:
            return rows.index_select(0, self.row_of_token)
        return rows.unsqueeze(1).expand(self.rows, self.length, rows.shape[1]).reshape(-1, rows.shape[1])

    def mean(self, flat: Float[Tensor, "T C"]) -> Float[Tensor, "R C"]:
        """Average over a row's real tokens; zero for a row without any."""
        if self.index is not None:
            assert self.mask is not None
            total = flat.new_zeros(self.rows, flat.shape[1]).index_add(0, self.row_of_token, flat)
            return total / self.mask.sum(1, keepdim=True).clamp(min=1).to(flat.dtype)
        rows = flat.view(self.rows, self.length, flat.shape[1])
        if self.mask is None:
            return rows.mean(1)
        return torch.bmm(self.weights.to(rows.dtype).unsqueeze(1), rows).squeeze(1)


def bucket_of(rows: int, length: int, mask: Bool[Tensor, "R S"] | None, dynamic: bool) -> Bucket:
    """The cheapest form for one modality; `dynamic` allows forms whose size depends on the mask's values."""
    if mask is None or not dynamic:
        return Bucket(rows, length, mask, None)
    real = int(mask.sum())
    if real == rows * length:
        return Bucket(rows, length, None, None)
    if real > PACK_BELOW * rows * length:
        return Bucket(rows, length, mask, None)
    return Bucket(rows, length, mask, mask.flatten().nonzero().squeeze(1))


def merged(group: Sequence[Bucket]) -> Bucket:
    """Neighbouring buckets of equal length and form as one."""
    if len(group) == 1:
        return group[0]
    rows, length = sum(b.rows for b in group), group[0].length
    masks = [b.mask for b in group if b.mask is not None]
    mask = torch.cat(masks) if masks else None
    index, offset = [], 0
    for bucket in group:
        if bucket.index is not None:
            index.append(bucket.index + offset)
        offset += bucket.rows * length
    return Bucket(rows, length, mask, torch.cat(index) if index else None)


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of M modalities of B samples, flat and modality-major.

    segments: one bucket a modality. buckets: the same tokens, equal neighbours merged. present: (R,) which rows have
    tokens.
    """

    batch: int
    segments: tuple[Bucket, ...]
    buckets: tuple[Bucket, ...]
    present: Bool[Tensor, " R"]

    @classmethod
    def build(
        cls, lengths: Sequence[int], masks: Sequence[Bool[Tensor, "B S"] | None], batch: int, device: torch.device
    ) -> Self:
        """Lay out modalities of `lengths` padded tokens each; a mask of None means that every token is real."""
        dynamic = not torch.compiler.is_compiling()
        segments = tuple(bucket_of(batch, n, mask, dynamic) for n, mask in zip(lengths, masks, strict=True))
        everyone = torch.ones(batch, dtype=torch.bool, device=device)
        present = torch.cat([everyone if s.mask is None else s.mask.any(1) for s in segments])
        return cls(batch, segments, cls._merge(segments), present)

    @staticmethod
    def _merge(segments: Sequence[Bucket]) -> tuple[Bucket, ...]:
        groups: list[list[Bucket]] = []
        for segment in segments:
            last = groups[-1][-1] if groups else None
            alike = last is not None and (last.length, last.mask is None, last.index is None) == (
                segment.length,
                segment.mask is None,
                segment.index is None,
            )
            if alike:
                groups[-1].append(segment)
            else:
                groups.append([segment])
        return tuple(merged(group) for group in groups)

    @property
    def tokens(self) -> int:
        return sum(bucket.tokens for bucket in self.buckets)

    def _split(self, flat: Tensor, parts: Sequence[Bucket], by_rows: bool = False) -> tuple[Tensor, ...]:
        if len(parts) == 1:
            return (flat,)
        return tuple(torch.split(flat, [p.rows if by_rows else p.tokens for p in parts]))

    def unpack(self, flat: Float[Tensor, "T C"]) -> list[Float[Tensor, "_ _ C"]]:
        """One (rows, S, C) tensor a bucket."""
        return [b.unpack(x) for b, x in zip(self.buckets, self._split(flat, self.buckets), strict=True)]

    def pack(self, rows: Sequence[Float[Tensor, "_ _ C"]]) -> Float[Tensor, "T C"]:
        return joined([b.pack(x) for b, x in zip(self.buckets, rows, strict=True)])

    def spread(self, rows: Float[Tensor, "R C"]) -> Float[Tensor, "T C"]:
        """Every row's values, repeated at its tokens."""
        parts = self._split(rows, self.buckets, by_rows=True)
        return joined([b.spread(x) for b, x in zip(self.buckets, parts, strict=True)])

    def mean(self, flat: Float[Tensor, "T C"]) -> Float[Tensor, "R C"]:
        """Average over each row's real tokens; zero for a missing modality."""
        return joined([b.mean(x) for b, x in zip(self.buckets, self._split(flat, self.buckets), strict=True)])

    def by_modality(self, flat: Float[Tensor, "T C"]) -> tuple[Float[Tensor, "_ C"], ...]:
        """The flat tokens of each modality."""
        return self._split(flat, self.segments)

    def padded(self, flat: Float[Tensor, "T C"]) -> list[Float[Tensor, "B _ C"]]:
        """One (B, S_m, C) tensor a modality, zeros in the padding."""
        return [s.padded(x) for s, x in zip(self.segments, self.by_modality(flat), strict=True)]

    def of_modality(self, position: int) -> "TokenLayout":
        """The layout of one modality's tokens alone."""
        segment = self.segments[position]
        rows = slice(position * self.batch, (position + 1) * self.batch)
        return TokenLayout(self.batch, (segment,), (segment,), self.present[rows])


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenation that leaves a single part alone."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
