"""What a `pgm cache` command speaks of: everything under a features folder, one dataset, or one store."""

from dataclasses import dataclass
from pathlib import Path

from .errors import NotFound
from .items import NAME as ITEMS
from .manifest import CARD, list_datasets, nearest, store_folders
from .records import PLAN, STORE


@dataclass(frozen=True)
class Selection:
    """Datasets meant as a whole, and store folders; a single store comes without its dataset."""

    datasets: tuple[Path, ...]
    stores: tuple[Path, ...]

    @property
    def folders(self) -> list[Path]:
        """The stores, and folders named like one that hold none: leftovers of a kill, or a lost store.json."""
        named = {path for dataset in self.datasets for path in dataset.glob("*--*--*") if path.is_dir()}
        return sorted(named | set(self.stores))

    @property
    def suspects(self) -> list[Path]:
        """The stores, and folders that were finished once and have lost store.json."""
        return [path for path in self.folders if path in self.stores or (path / ITEMS).exists()]


def select(root: Path, target: str | None = None) -> Selection:
    """Resolve a dataset's name or path, or a store's path; None is all of `root`. NotFound suggests a name."""
    if target is None:
        datasets = tuple(root / name for name in list_datasets(root))
        return Selection(datasets, tuple(folder for dataset in datasets for folder in store_folders(dataset)))
    for folder in (Path(target), root / target):
        if (folder / CARD).exists():
            return Selection((folder,), tuple(store_folders(folder)))
        if any((folder / name).exists() for name in (STORE, PLAN, ITEMS)):
            return Selection((), (folder,))
    known = list_datasets(root)
    raise NotFound(
        f"{target!r} is neither a dataset under {root}/ nor the path of a store{nearest(target, known)}. "
        + (f"Datasets: {', '.join(known)}." if known else f"{root}/ holds no dataset.")
    )
