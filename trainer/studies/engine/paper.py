"""The paper's numbers (Tables 2, 3 and 4), in per cent, printed beside ours on the same dataset and never tuned to.

MOSI has two conventions for its two classes, negative/non-negative (has0) and negative/positive (non0). Several
ablation rows of the paper equal rows of its Table 2 exactly, and some lie below the majority class, so they say little
about what a module is worth.
"""

from __future__ import annotations

from collections.abc import Mapping

METRICS = {
    "mosi": ("acc2_has0", "acc2_non0", "f1_has0", "f1_non0"),
    "meld": ("accuracy", "weighted_f1"),
    "wikipedia": ("map", "p10"),
    "food101": ("accuracy", "weighted_f1"),
}
NUMBERS: Mapping[str, Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    "2": {
        "Single-Modal (Audio)": {"mosi": (48.58, 50.36, 44.31, 46.47), "meld": (51.44, 52.72)},
        "Single-Modal (Vision)": {
            "mosi": (65.86, 69.72, 65.97, 69.94),
            "meld": (51.75, 54.06),
            "food101": (71.58, 72.04),
        },
        "Single-Modal (Text)": {
            "mosi": (64.33, 66.16, 63.20, 65.32),
            "meld": (56.21, 56.38),
            "food101": (69.92, 69.89),
        },
        "Concatenation": {
            "mosi": (69.15, 70.42, 67.26, 69.17),
            "meld": (58.64, 58.16),
            "wikipedia": (62.84, 56.29),
            "food101": (82.43, 80.49),
        },
        "Add": {
            "mosi": (67.61, 67.61, 66.13, 66.13),
            "meld": (53.58, 54.67),
            "wikipedia": (61.98, 55.05),
            "food101": (81.67, 81.66),
        },
        "Element-wise Maximum": {
            "mosi": (68.16, 69.50, 65.16, 66.87),
            "meld": (51.59, 52.86),
            "wikipedia": (61.99, 56.96),
            "food101": (80.11, 80.09),
        },
        "Linear-Fusion": {
            "mosi": (66.52, 67.81, 64.58, 65.36),
            "meld": (53.72, 54.89),
            "wikipedia": (61.54, 54.14),
            "food101": (77.10, 77.05),
        },
        "MLP": {
            "mosi": (66.30, 67.82, 65.41, 66.57),
            "meld": (54.16, 55.88),
            "wikipedia": (61.71, 55.06),
            "food101": (84.82, 84.85),
        },
    },
    "3": {
        "w/o Modal Partitioner": {
            "mosi": (48.58, 50.69, 44.31, 47.46),
            "meld": (51.44, 52.72),
            "wikipedia": (60.90, 59.18),
            "food101": (59.69, 53.14),
        },
        "w/o Uni-Modal Learner": {
            "mosi": (65.86, 67.18, 65.97, 67.06),
            "meld": (51.75, 54.06),
            "wikipedia": (63.23, 63.64),
            "food101": (70.12, 70.65),
        },
        "w/o Paired-Modal Learner": {
            "mosi": (68.14, 70.05, 66.31, 68.69),
            "meld": (54.46, 56.16),
            "wikipedia": (64.68, 65.25),
            "food101": (73.65, 72.96),
        },
        "w/o Uni-Paired Decoder": {
            "mosi": (69.90, 70.69, 66.37, 67.44),
            "meld": (56.81, 57.32),
            "wikipedia": (64.21, 64.64),
            "food101": (74.89, 74.77),
        },
    },
    "4": {
        "Self-MM": {"mosi": (84.00, 85.98, 84.42, 85.95)},
        "Self-MM + PgM": {"mosi": (85.54, 86.75, 85.18, 86.36)},
        "MMIM": {"mosi": (84.14, 86.06, 84.00, 85.98)},
        "MMIM + PgM": {"mosi": (85.36, 86.63, 85.27, 86.15)},
        "UniMSE": {"meld": (65.09, 65.51)},
        "UniMSE + PgM": {"meld": (66.48, 67.06)},
        "UniMEEC-style": {"meld": (67.36, 68.09)},
        "UniMEEC-style + PgM": {"meld": (67.92, 68.76)},
    },
}
PGM = {
    "mosi": (84.69, 85.39, 84.65, 85.95),
    "meld": (66.69, 66.95),
    "wikipedia": (73.35, 70.82),
    "food101": (90.36, 91.04),
}


def paper_numbers(table: str, dataset: str, label: str) -> dict[str, float]:
    """Metric -> the paper's number as a fraction; empty where the paper has none for this table, dataset and row."""
    if dataset not in METRICS or table not in NUMBERS:
        return {}
    found = PGM[dataset] if label == "PgM" else NUMBERS[table].get(label, {}).get(dataset)
    return dict(zip(METRICS[dataset], (value / 100 for value in found), strict=True)) if found else {}
