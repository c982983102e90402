"""Where the tokens of a batch lie: all modalities and samples in one flat (T, D) matrix; token-wise layers run once.

Legend: B samples, M modalities, R = M * B rows (modality-major), S longest sample, T flat tokens, C width; whatever
stands before T or R (branches, iterations) is carried along.
Decided: only real tokens are kept (packed); attention alone unpacks to (rows, S, C), per group of neighbouring
modalities of like S. Packing needs the number of real tokens on the host. Where the caller knows it nothing is read
back. Where nobody does (a graph being traced, a GPU to wait for) padding stays in and is masked: the same numbers for
more work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Bucket:
    """Rows of equal padded length S: one modality, or several neighbouring ones.

    mask is None when every token is real; index holds the flat positions of the real tokens when the bucket is packed.
    """

    rows: int
    length: int
    mask: Bool[Tensor, "R S"] | None
    index: Int[Tensor, " T"] | None
    biases: dict[torch.dtype, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tokens(self) -> int:
        return self.rows * self.length if self.index is None else self.index.shape[0]

    def row_of_token(self, device: torch.device) -> Int[Tensor, " T"]:
        if self.index is not None:
            return self.index // self.length
        return torch.arange(self.rows, device=device).repeat_interleave(self.length)

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "R S"] | None:
        """What is added to the scores of each key token: nothing for real ones, far below any score for padding.

        Finite, so that a row without any real token softmaxes to something finite.
        """
        if self.mask is None:
            return None
        if dtype not in self.biases:
            lowest = torch.finfo(dtype).min / 2
            self.biases[dtype] = torch.zeros_like(self.mask, dtype=dtype).masked_fill_(~self.mask, lowest)
        return self.biases[dtype]

    def unpack(self, flat: Float[Tensor, "*G T C"]) -> Float[Tensor, "*G R S C"]:
        """To rows; padding is zero in a packed bucket and unspecified in a padded one."""
        if self.index is not None:
            places = flat.new_zeros(*flat.shape[:-2], self.rows * self.length, flat.shape[-1])
            flat = places.index_add_(-2, self.index, flat)
        return torch.unflatten(flat, -2, (self.rows, self.length))

    def beside(self, flat: Float[Tensor, "*G K T C"]) -> Float[Tensor, "*G R _ C"]:
        """K tensors unpacked, a row's tokens of all K one after the other."""
        count = flat.shape[-3]
        if self.index is None:
            return torch.unflatten(flat, -2, (self.rows, self.length)).transpose(-4, -3).flatten(-3, -2)
        first = self.index + self.index // self.length * (self.length * (count - 1))
        index = torch.cat([first + k * self.length for k in range(count)])
        return Bucket(self.rows, count * self.length, None, index).unpack(flat.flatten(-3, -2))

    def pack(self, rows: Float[Tensor, "*G R S C"]) -> Float[Tensor, "*G T C"]:
        flat = rows.flatten(-3, -2)
        return flat if self.index is None else flat.index_select(-2, self.index)

    def padded(self, flat: Float[Tensor, "*G T C"]) -> Float[Tensor, "*G R S C"]:
        """To rows with zeros in the padding."""
        rows = self.unpack(flat)
        return rows if self.mask is None or self.index is not None else rows * self.mask.unsqueeze(2)

    def broadcast(self, rows: Shaped[Tensor, "*G R C"]) -> Shaped[Tensor, "*G T C"]:
        """A row's values at each of its tokens; not for packed buckets."""
        return rows.unsqueeze(-2).expand(*rows.shape[:-1], self.length, rows.shape[-1]).flatten(-3, -2)

    def mean(self, flat: Float[Tensor, "*G T C"]) -> Float[Tensor, "*G R C"]:
        """Average over a row's real tokens, zero without any; not for packed buckets."""
        rows = torch.unflatten(flat, -2, (self.rows, self.length))
        if self.mask is None:
            return rows.mean(-2)
        total = torch.matmul(self.mask.to(rows.dtype).unsqueeze(1), rows).squeeze(-2)
        return total / self.mask.sum(1, keepdim=True).clamp(min=1).to(rows.dtype)


def bucket_of(rows: int, length: int, mask: Bool[Tensor, "R S"] | None, total: int | None) -> Bucket:
    """One modality: packed to its `total` real tokens, or as it is where nobody knows how many these are."""
    if mask is None or torch.compiler.is_compiling():
        return Bucket(rows, length, mask, None)
    if total is None and mask.device.type != "cpu":
        return Bucket(rows, length, mask, None)
    total = int(mask.sum()) if total is None else total
    if total == rows * length:
        return Bucket(rows, length, None, None)
    return Bucket(rows, length, mask, torch.nonzero_static(mask.flatten(), size=total).squeeze(1))


def alike(first: Bucket, other: Bucket) -> bool:
    """Whether two modalities' attention is one: of equal length, or packed and less than twice as long as the other."""
    if (first.mask is None, first.index is None) != (other.mask is None, other.index is None):
        return False
    # Compared in this order: lengths may be symbols of a traced graph, about which nothing more must be asked.
    if first.length == other.length or first.index is None:
        return first.length == other.length
    return max(first.length, other.length) < 2 * min(first.length, other.length)


def merged(group: Sequence[Bucket]) -> Bucket:
    """Neighbouring buckets of like length and form as one, as long as the longest."""
    if len(group) == 1:
        return group[0]
    length = max(b.length for b in group)
    masks, index, offset = [], [], 0
    for bucket in group:
        longer = length - bucket.length
        if bucket.mask is not None:
            masks.append(F.pad(bucket.mask, (0, longer)) if longer else bucket.mask)
        if bucket.index is not None:
            moved = bucket.index + bucket.index // bucket.length * longer if longer else bucket.index
            index.append(moved + offset)
        offset += bucket.rows * length
    return Bucket(
        sum(b.rows for b in group), length, torch.cat(masks) if masks else None, torch.cat(index) if index else None
    )


def in_groups(segments: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """Neighbours that are all alike, merged."""
    groups: list[list[Bucket]] = []
    for segment in segments:
        if groups and all(alike(each, segment) for each in groups[-1]):
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return tuple(merged(group) for group in groups)


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of M modalities of B samples, flat and modality-major.

    segments: one bucket a modality. buckets: the same tokens, equal neighbours merged. present: (R,) which rows have
    tokens. counts: (R, 1) how many, at least 1. rows: each flat token's row, where gathering by it beats working bucket
    by bucket.
    """

    batch: int
    segments: tuple[Bucket, ...]
    buckets: tuple[Bucket, ...]
    present: Bool[Tensor, " R"]
    counts: Int[Tensor, "R 1"]
    rows: Int[Tensor, " T"] | None

    @classmethod
    def build(
        cls,
        lengths: Sequence[int],
        masks: Sequence[Bool[Tensor, "_ _"] | None],
        batch: int,
        device: torch.device,
        totals: Sequence[int | None] | None = None,
    ) -> "TokenLayout":
        """Lay out modalities of `lengths` padded tokens each; a (B, S) mask of None means that every token is real.

        totals: the number of real tokens of each, None where the caller does not know it.
        """
        known = [None] * len(lengths) if totals is None else totals
        segments = tuple(bucket_of(batch, *each) for each in zip(lengths, masks, known, strict=True))
        counts = joined([token_counts(s, device) for s in segments])
        return cls._of(batch, segments, counts > 0, counts.clamp(min=1).unsqueeze(1))

    @classmethod
    def _of(cls, batch: int, segments: tuple[Bucket, ...], present: Tensor, counts: Tensor) -> "TokenLayout":
        buckets = in_groups(segments)
        rows = None
        if not torch.compiler.is_compiling() and (len(buckets) > 1 or buckets[0].index is not None):
            starts = accumulate((b.rows for b in buckets), initial=0)
            rows = joined([b.row_of_token(present.device) + i for b, i in zip(buckets, starts, strict=False)])
        return cls(batch, segments, buckets, present, counts, rows)

    @property
    def tokens(self) -> int:
        return sum(bucket.tokens for bucket in self.buckets)

    def split(self, flat: Float[Tensor, "*G T C"]) -> tuple[Tensor, ...]:
        """The flat tokens of each bucket."""
        return parts_of(flat, [b.tokens for b in self.buckets], -2)

    def split_rows(self, rows: Float[Tensor, "*G R C"]) -> tuple[Tensor, ...]:
        """The rows of each bucket."""
        return parts_of(rows, [b.rows for b in self.buckets], -2)

    def unpack(self, flat: Float[Tensor, "*G T C"]) -> list[Float[Tensor, "*G _ _ C"]]:
        """One (..., rows, S, C) tensor a bucket."""
        return [b.unpack(x) for b, x in zip(self.buckets, self.split(flat), strict=True)]

    def pack(self, rows: Sequence[Float[Tensor, "*G _ _ C"]]) -> Float[Tensor, "*G T C"]:
        return joined([b.pack(x) for b, x in zip(self.buckets, rows, strict=True)], -2)

    def broadcast(self, rows: Shaped[Tensor, "*G R C"]) -> Shaped[Tensor, "*G T C"]:
        """Every row's values, repeated at its tokens."""
        if self.rows is not None:
            return rows.index_select(-2, self.rows)
        return joined([b.broadcast(x) for b, x in zip(self.buckets, self.split_rows(rows), strict=True)], -2)

    def mean(self, flat: Float[Tensor, "*G T C"]) -> Float[Tensor, "*G R C"]:
        """Average over each row's real tokens; zero for a missing modality."""
        if self.rows is not None:
            none = flat.new_zeros(*flat.shape[:-2], self.present.shape[0], flat.shape[-1])
            return none.index_add_(-2, self.rows, flat) / self.counts.to(flat.dtype)
        return joined([b.mean(x) for b, x in zip(self.buckets, self.split(flat), strict=True)], -2)

    def shares(self, rows: Float[Tensor, " R"]) -> Float[Tensor, " T"]:
        """Every row's number, split evenly among its real tokens; zero in the padding."""
        each = self.broadcast(rows.unsqueeze(1) / self.counts.to(rows.dtype)).squeeze(1)
        if all(b.mask is None or b.index is not None for b in self.buckets):
            return each
        parts = zip(self.buckets, parts_of(each, [b.tokens for b in self.buckets]), strict=True)
        return joined([x if b.mask is None or b.index is not None else x * b.mask.flatten() for b, x in parts])

    def by_modality(self, flat: Float[Tensor, "*G T C"]) -> tuple[Float[Tensor, "*G _ C"], ...]:
        """The flat tokens of each modality."""
        return parts_of(flat, [s.tokens for s in self.segments], -2)

    def rows_by_modality(self, rows: Float[Tensor, "*G R C"]) -> tuple[Float[Tensor, "*G B C"], ...]:
        """The rows of each modality."""
        return parts_of(rows, [s.rows for s in self.segments], -2)

    def padded(self, flat: Float[Tensor, "*G T C"]) -> list[Float[Tensor, "*G B _ C"]]:
        """One (..., B, S_m, C) tensor a modality, zeros in the padding."""
        rows: list[Tensor] = []
        for bucket, x in zip(self.buckets, self.split(flat), strict=True):
            rows += parts_of(bucket.padded(x), [self.batch] * (bucket.rows // self.batch), -3)
        return [x[..., : s.length, :] for x, s in zip(rows, self.segments, strict=True)]

    def of_modality(self, position: int) -> "TokenLayout":
        """The layout of one modality's tokens alone."""
        rows = slice(position * self.batch, (position + 1) * self.batch)
        return self._of(self.batch, (self.segments[position],), self.present[rows], self.counts[rows])


def token_counts(bucket: Bucket, device: torch.device) -> Int[Tensor, " R"]:
    """The number of real tokens of each row."""
    if bucket.mask is not None:
        return bucket.mask.sum(1)
    return torch.full((bucket.rows,), bucket.length, device=device)


def joined(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Concatenation that leaves a single part alone."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), axis)


def parts_of(whole: Tensor, sizes: Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """The inverse of `joined`."""
    return (whole,) if len(sizes) == 1 else tuple(torch.split(whole, list(sizes), axis))
