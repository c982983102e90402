"""Where the tokens of a batch lie: all modalities and samples in one flat (T, D) matrix; token-wise layers run once.

Legend: B samples, M modalities, R = M * B rows (modality-major), S longest sample, T flat tokens, C width.
Decided: only real tokens are kept (packed); attention alone unpacks to (rows, S, C), per group of neighbouring
modalities of equal S. Packing needs the number of real tokens on the host. Where the caller knows it nothing is read
back. Where nobody does (a graph being traced, a GPU to wait for) padding stays in and is masked: the same numbers for
more work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
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

    @property
    def tokens(self) -> int:
        return self.rows * self.length if self.index is None else self.index.shape[0]

    def row_of_token(self, device: torch.device) -> Int[Tensor, " T"]:
        if self.index is not None:
            return self.index // self.length
        return torch.arange(self.rows, device=device).repeat_interleave(self.length)

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
        return rows if self.mask is None or self.index is not None else rows * self.mask.unsqueeze(2)

    def broadcast(self, rows: Shaped[Tensor, "R C"]) -> Shaped[Tensor, "T C"]:
        """A row's values at each of its tokens; not for packed buckets."""
        return rows.unsqueeze(1).expand(self.rows, self.length, rows.shape[1]).reshape(-1, rows.shape[1])

    def mean(self, flat: Float[Tensor, "T C"]) -> Float[Tensor, "R C"]:
        """Average over a row's real tokens, zero without any; not for packed buckets."""
        rows = flat.view(self.rows, self.length, flat.shape[1])
        if self.mask is None:
            return rows.mean(1)
        total = torch.bmm(self.mask.to(rows.dtype).unsqueeze(1), rows).squeeze(1)
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


def merged(group: Sequence[Bucket]) -> Bucket:
    """Neighbouring buckets of equal length and form as one."""
    if len(group) == 1:
        return group[0]
    length = group[0].length
    masks = [b.mask for b in group if b.mask is not None]
    index, offset = [], 0
    for bucket in group:
        if bucket.index is not None:
            index.append(bucket.index + offset)
        offset += bucket.rows * length
    return Bucket(
        sum(b.rows for b in group), length, torch.cat(masks) if masks else None, torch.cat(index) if index else None
    )


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
        totals = [None] * len(lengths) if totals is None else totals
        segments = tuple(bucket_of(batch, *each) for each in zip(lengths, masks, totals, strict=True))
        counts = joined([token_counts(s, device) for s in segments])
        return cls._of(batch, segments, counts > 0, counts.clamp(min=1).unsqueeze(1))

    @classmethod
    def _of(cls, batch: int, segments: tuple[Bucket, ...], present: Tensor, counts: Tensor) -> "TokenLayout":
        alike = groupby(segments, key=lambda s: (s.length, s.mask is None, s.index is None))
        buckets = tuple(merged(list(group)) for _, group in alike)
        rows = None
        if not torch.compiler.is_compiling() and (len(buckets) > 1 or buckets[0].index is not None):
            starts = accumulate((b.rows for b in buckets), initial=0)
            rows = joined([b.row_of_token(present.device) + i for b, i in zip(buckets, starts, strict=False)])
        return cls(batch, segments, buckets, present, counts, rows)

    @property
    def tokens(self) -> int:
        return sum(bucket.tokens for bucket in self.buckets)

    def split(self, flat: Float[Tensor, "T ..."]) -> tuple[Tensor, ...]:
        """The flat tokens of each bucket."""
        return parts_of(flat, [b.tokens for b in self.buckets])

    def split_rows(self, rows: Float[Tensor, "R C"]) -> tuple[Tensor, ...]:
        """The rows of each bucket."""
        return parts_of(rows, [b.rows for b in self.buckets])

    def unpack(self, flat: Float[Tensor, "T C"]) -> list[Float[Tensor, "_ _ C"]]:
        """One (rows, S, C) tensor a bucket."""
        return [b.unpack(x) for b, x in zip(self.buckets, self.split(flat), strict=True)]

    def pack(self, rows: Sequence[Float[Tensor, "_ _ C"]]) -> Float[Tensor, "T C"]:
        return joined([b.pack(x) for b, x in zip(self.buckets, rows, strict=True)])

    def broadcast(self, rows: Shaped[Tensor, "R C"]) -> Shaped[Tensor, "T C"]:
        """Every row's values, repeated at its tokens."""
        if self.rows is not None:
            return rows.index_select(0, self.rows)
        return joined([b.broadcast(x) for b, x in zip(self.buckets, self.split_rows(rows), strict=True)])

    def mean(self, flat: Float[Tensor, "T C"]) -> Float[Tensor, "R C"]:
        """Average over each row's real tokens; zero for a missing modality."""
        if self.rows is not None:
            total = flat.new_zeros(self.present.shape[0], flat.shape[1]).index_add(0, self.rows, flat)
            return total / self.counts.to(flat.dtype)
        return joined([b.mean(x) for b, x in zip(self.buckets, self.split(flat), strict=True)])

    def by_modality(self, flat: Float[Tensor, "T C"]) -> tuple[Float[Tensor, "_ C"], ...]:
        """The flat tokens of each modality."""
        return parts_of(flat, [s.tokens for s in self.segments])

    def rows_by_modality(self, rows: Float[Tensor, "R C"]) -> tuple[Float[Tensor, "B C"], ...]:
        """The rows of each modality."""
        return parts_of(rows, [s.rows for s in self.segments])

    def padded(self, flat: Float[Tensor, "T C"]) -> list[Float[Tensor, "B _ C"]]:
        """One (B, S_m, C) tensor a modality, zeros in the padding."""
        return [s.padded(x) for s, x in zip(self.segments, self.by_modality(flat), strict=True)]

    def of_modality(self, position: int) -> "TokenLayout":
        """The layout of one modality's tokens alone."""
        rows = slice(position * self.batch, (position + 1) * self.batch)
        return self._of(self.batch, (self.segments[position],), self.present[rows], self.counts[rows])


def token_counts(bucket: Bucket, device: torch.device) -> Int[Tensor, " R"]:
    """The number of real tokens of each row."""
    if bucket.mask is not None:
        return bucket.mask.sum(1)
    return torch.full((bucket.rows,), bucket.length, device=device)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenation that leaves a single part alone."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def parts_of(whole: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """The inverse of `joined`."""
    return (whole,) if len(sizes) == 1 else tuple(torch.split(whole, list(sizes)))
