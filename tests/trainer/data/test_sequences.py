"""Groups and sequences: who stands beside whom, and that nothing crosses a group's or a split's border."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pgm.cache import open_dataset
from pgm.cache.errors import UserError
from pgm.trainer.batch import Inputs
from pgm.trainer.data.feed import Feed, open_feed
from pgm.trainer.data.groups import Groups, following, grouped, groups_of
from pgm.trainer.data.sequence import Context, Neighbours, context_of, in_context

CPU = torch.device("cpu")
COUNTS = {"train": 60, "val": 20, "test": 20}


@pytest.fixture
def videos(tmp_path: Path, make_toy: Callable[..., Path]) -> Path:
    """Vectors, one a sample and modality; videos that straddle splits; some modalities missing."""
    return make_toy(tmp_path / "features", counts=COUNTS, longest=1, groups=9, missing=0.2)


def feed_over(root: Path, rows: np.ndarray, kind: str, context: int = 2, whole: bool = False) -> Feed:
    dataset = open_dataset(root, "toy")
    features = {m: dataset.features(m) for m in ("text", "vision")}
    groups = groups_of(dataset.samples["group"].to_pylist(), dataset.samples["id"].to_pylist(), rows, whole, context)
    return open_feed(kind, features, rows, np.arange(len(rows)), 0, CPU, groups)


def expected_tokens(root: Path, modality: str, rows: np.ndarray, row: int, context: int) -> list[np.ndarray]:
    """Own vector, neighbour's vector, distance: as one would look them up by hand."""
    dataset = open_dataset(root, "toy")
    store, names = dataset.features(modality), dataset.samples["group"].to_pylist()

    def vector(at: int) -> np.ndarray | None:
        packed, _ = store.gather(np.array([at]), unavailable="empty")
        return packed[0] if len(packed) else None

    mates = [other for other in rows if names[other] == names[row]]
    place, own = mates.index(row), vector(row)
    found = []
    for turn, other in enumerate(mates):
        x = vector(other)
        if abs(turn - place) <= context and x is not None:
            mine = np.zeros_like(x) if own is None else own
            found.append(np.concatenate([mine, x, [(turn - place) / context]]))
    return found


@pytest.mark.parametrize("kind", ["resident", "mapped"])
@pytest.mark.parametrize("part", [slice(0, 60), slice(80, 100)])
def test_a_samples_tokens_are_the_neighbours_of_its_group_in_its_split(videos: Path, kind: str, part: slice) -> None:
    rows = np.arange(100, dtype=np.int64)[part]
    feed = feed_over(videos, rows, kind)
    for batch in feed.batches(feed.training_order(16, seed=1)):
        shown = in_context(batch.inputs.mapped(lambda x: x.float() if x.is_floating_point() else x))
        for modality, tokens in shown.tokens.items():
            for i, row in enumerate(rows[batch.samples].tolist()):
                wanted = expected_tokens(videos, modality, rows, row, 2)
                mask = shown.masks[modality][i]
                assert int(mask.sum()) == len(wanted)
                assert not tokens[i][~mask].any()
                if wanted:
                    assert tokens[i][mask].numpy() == pytest.approx(np.stack(wanted), abs=1e-6)


def test_resident_and_mapped_give_the_same_sequences_bit_for_bit(videos: Path) -> None:
    rows = np.arange(60, dtype=np.int64)
    one, other = (feed_over(videos, rows, kind) for kind in ("resident", "mapped"))
    for a, b in zip(one.batches(one.evaluation_order(16)), other.batches(one.evaluation_order(16)), strict=True):
        assert a.inputs.distances is not None
        assert b.inputs.distances is not None
        for m in ("text", "vision"):
            assert torch.equal(a.inputs.tokens[m], b.inputs.tokens[m])
            assert torch.equal(a.inputs.masks[m], b.inputs.masks[m])
            assert torch.equal(a.inputs.distances[m], b.inputs.distances[m])


def test_the_own_vector_is_in_every_token_and_zero_where_the_sample_lacks_the_modality() -> None:
    tokens = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [0.0]]])
    masks = torch.tensor([[True, True, True], [True, True, False]])
    distances = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 1.0, 0.0]])
    shown = in_context(Inputs({"text": tokens}, {"text": masks}, {"text": distances})).tokens["text"]
    assert shown[0].tolist() == [[2.0, 1.0, -1.0], [2.0, 2.0, 0.0], [2.0, 3.0, 1.0]]
    assert shown[1].tolist() == [[0.0, 4.0, -1.0], [0.0, 5.0, 1.0], [0.0, 0.0, 0.0]]


def test_no_window_reaches_into_the_next_group() -> None:
    codes, turns = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 0, 1, 2, 0])
    around = Neighbours(Groups(codes, turns, context=50), np.ones(6, bool), CPU)
    for position in range(6):
        index, mask, _ = around.of(np.array([position]), torch.tensor([position]))
        assert index[0][mask[0]].tolist() == [i for i in range(6) if codes[i] == codes[position]]


def test_utterances_of_several_tokens_are_refused_with_the_way_out(
    tmp_path: Path, make_toy: Callable[..., Path]
) -> None:
    root = make_toy(tmp_path / "features", counts=COUNTS, longest=3, groups=9)
    with pytest.raises(UserError, match=r"up to 3 tokens a sample\. Pool them with --tokens 1"):
        feed_over(root, np.arange(60, dtype=np.int64), "resident")


def test_groups_are_counted_within_a_split() -> None:
    names, ids = ["b", "a", "b", "a", "b"], ["v/1", "w/1", "v/2", "w/2", "v/3"]
    whole = groups_of(names, ids, np.arange(5), context=1)
    part = groups_of(names, ids, np.array([1, 2, 4]), context=1)
    assert whole is not None
    assert part is not None
    assert (whole.codes.tolist(), whole.turns.tolist()) == ([1, 0, 1, 0, 1], [0, 0, 1, 1, 2])
    assert (part.codes.tolist(), part.turns.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert groups_of(None, ids, np.arange(3)) is None
    with pytest.raises(UserError, match="no column 'group'"):
        groups_of(None, ids, np.arange(3), whole=True)


@pytest.mark.parametrize(
    ("ids", "order"),
    [
        (["clip_1", "clip_10", "clip_2"], [0, 2, 1]),
        (["dia3_utt0", "dia3_utt7", "dia3_utt2"], [0, 2, 1]),
        (["Ses01_F001", "Ses01_M000", "Ses01_F002"], [0, 1, 2]),
    ],
)
def test_samples_follow_each_other_by_number_where_their_ids_differ_in_nothing_else(
    ids: list[str], order: list[int]
) -> None:
    assert following(ids) == order


def test_batches_hold_whole_groups_in_order_and_every_sample_once() -> None:
    codes = np.random.default_rng(0).integers(0, 12, 100)
    names, ids = [f"video{code}" for code in codes], [f"{i}" for i in reversed(range(100))]
    groups = groups_of(names, ids, np.arange(100), whole=True)
    assert groups is not None
    for seed in (None, 3):
        batches = grouped(groups, 16, seed)
        assert sorted(np.concatenate(batches).tolist()) == list(range(100))
        assert sum(len(set(groups.codes[batch])) for batch in batches) == 12
        assert all(len(batch) >= 16 for batch in batches[:-1])
        for batch in batches:
            for code in set(groups.codes[batch]):
                own = [int(i) for i in batch if groups.codes[i] == code]
                assert own == sorted(own, reverse=True)  # ids count down here
    shuffled = [np.concatenate(grouped(groups, 16, seed)).tolist() for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2]


def test_what_the_options_do_not_take_is_said() -> None:
    assert context_of("sample", None) is None
    assert context_of("group", None) == Context(8)
    assert context_of("group", 3) == Context(3)
    with pytest.raises(UserError, match=r"sample or group, not 'groups'\. Did you mean 'group'"):
        context_of("groups", None)
    with pytest.raises(UserError, match="--context counts the neighbours"):
        context_of("sample", 3)
    with pytest.raises(UserError, match="1 or more"):
        context_of("group", 0)
