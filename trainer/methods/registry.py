"""Methods by name: `--method pgm`, `--method concat`, `--method single:audio` (or just `audio`).

To add a method: one file with its configuration and module, and one line here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...cache.errors import UserError
from ..head import FusionConfig, PgMConfig
from ..head.switches import changed, nearest
from .add import AddConfig
from .alternation import ALTERNATION, AlternationConfig
from .base import MethodConfig, Shape
from .concat import ConcatConfig
from .ensemble import EnsembleConfig
from .gblend import GBlendConfig
from .joint import BalanceConfig, JointConfig
from .late import LateConfig
from .linear import LinearConfig
from .maximum import MaximumConfig
from .mla import PRESETS, MLAConfig
from .mlp import MLPConfig
from .mmpareto import MMParetoConfig
from .modality_dropout import ModalityDropoutConfig
from .ogm_ge import OGMGEConfig
from .pgm import PgMMethodConfig
from .pgm_mla import PgMMLAConfig
from .pmr import PMRConfig
from .prior import MMIMConfig, SelfMMConfig, UniMEECConfig, UniMSEConfig
from .prior.base import PriorConfig
from .qmf import QMFConfig
from .reconboost import ReconBoostConfig
from .single import SingleConfig
from .trunk import TrunkConfig
from .umt import UMTConfig

Settings = Mapping[str, Any]
# Preset, shape and settings to the configuration, and the settings that are none of its fields.
Maker = Callable[[str, Shape, Settings], tuple[MethodConfig, dict[str, Any]]]


@dataclass(frozen=True)
class MethodChoice:
    """A method by name, with its configuration."""

    name: str
    config: MethodConfig

    def describe(self) -> dict[str, Any]:
        """JSON-able: what decides the method's numbers, the version of its code included."""
        return {"name": self.name, "version": self.config.version, **dataclasses.asdict(self.config)}  # type: ignore[call-overload]

    @property
    def retrieves(self) -> bool:
        """Whether the fused vector can be compared; a configuration says with `retrieves = False` when it cannot."""
        return bool(getattr(self.config, "retrieves", True))

    @property
    def whole_groups(self) -> bool:
        """Whether a batch must hold whole groups of samples."""
        return bool(getattr(self.config, "whole_groups", False))

    @property
    def further_labels(self) -> tuple[str, ...]:
        """Columns of the samples that training uses besides the label, where the dataset has them."""
        return tuple(getattr(self.config, "further_labels", ()))


def plain(config: type[TrunkConfig]) -> Maker:
    """The maker of a configuration that extends TrunkConfig."""

    def make(preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        made, rest = changed(config(**config.values(preset)), settings)
        return made, rest  # type: ignore[return-value]

    return make


def several(make: Maker) -> Maker:
    """The maker of a method about the balance of modalities, which refuses a single one."""

    def checked(preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        if len(shape.modalities) < 2:
            raise UserError(
                f"This method trains several modalities against each other, and {shape.modalities[0]} is the only one "
                "here. Choose more with --modalities, or a method of one modality (--method single:"
                f"{shape.modalities[0]})."
            )
        config, rest = make(preset, shape, settings)
        if isinstance(config, BalanceConfig | MLAConfig | PgMMLAConfig):
            config.check(shape)
        return config, rest

    return checked


def make_mla(preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
    """MLA's configuration: what `mla_preset` sets, then the settings."""
    chosen, _ = changed(MLAConfig(), {k: v for k, v in settings.items() if k == "mla_preset"})
    values = {**MLAConfig.values(preset), **PRESETS[chosen.mla_preset]}
    return changed(dataclasses.replace(chosen, **values), settings)


def make_pgm(preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
    """PgM's configuration and its fusion head's; a setting that both have (dim, heads, dropout) goes to both."""
    head, rest = changed((PgMConfig.small if preset == "small" else PgMConfig.paper)(dict(shape.widths)), settings)
    same = {name: getattr(head, name) for name in ("dim", "heads", "feedforward", "dropout", "branches")}
    build = FusionConfig.small if preset == "small" else FusionConfig.paper
    fusion, rest = changed(build(shape.modalities, shape.outputs, **same), rest)
    return PgMMethodConfig(head, fusion), rest


def make_pgm_mla(preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
    """PgM's configuration and the switches of MLA's turns."""
    pgm, rest = make_pgm(preset, shape, settings)
    assert isinstance(pgm, PgMMethodConfig)
    named, _ = changed(AlternationConfig(), {k: v for k, v in rest.items() if k == "mla_preset"})
    turns, rest = changed(dataclasses.replace(named, **ALTERNATION[named.mla_preset]), rest)
    return PgMMLAConfig(pgm.head, pgm.fusion, turns), rest


def prior(config: type[PriorConfig], pgm: bool) -> Maker:
    """The maker of a prior model, with PgM in its fusion's place or as it is.

    A setting that the model and PgM both have goes to both.
    """

    def make(preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        own, rest = changed(config(), settings)
        own.check(shape)
        if not pgm:
            return own, rest  # type: ignore[return-value]
        placed, unknown = make_pgm(preset, dataclasses.replace(shape, widths=own.read_by_fusion(shape)), settings)
        assert isinstance(placed, PgMMethodConfig)
        made = dataclasses.replace(own, head=placed.head, fusion=placed.fusion, pgm_version=placed.version)
        return made, {name: value for name, value in rest.items() if name in unknown}  # type: ignore[return-value]

    return make


PLAIN: dict[str, type[Any]] = {
    "concat": ConcatConfig,
    "add": AddConfig,
    "max": MaximumConfig,
    "linear": LinearConfig,
    "mlp": MLPConfig,
    "late": LateConfig,
    "ensemble": EnsembleConfig,
}
BALANCED: dict[str, type[Any]] = {
    "joint": JointConfig,
    "modality_dropout": ModalityDropoutConfig,
    "ogm_ge": OGMGEConfig,
    "umt": UMTConfig,
    "qmf": QMFConfig,
    "gblend": GBlendConfig,
    "mmpareto": MMParetoConfig,
    "pmr": PMRConfig,
    "reconboost": ReconBoostConfig,
}
PRIOR: dict[str, type[PriorConfig]] = {
    "self_mm": SelfMMConfig,
    "mmim": MMIMConfig,
    "unimse": UniMSEConfig,
    "unimeec": UniMEECConfig,
}
PRIOR_METHODS: dict[str, Maker] = {
    **{name: prior(config, pgm=False) for name, config in PRIOR.items()},
    **{f"{name}+pgm": prior(config, pgm=True) for name, config in PRIOR.items()},
}
METHODS: dict[str, Maker] = {
    "pgm": make_pgm,
    **{name: plain(config) for name, config in PLAIN.items()},
    "mla": several(make_mla),
    "pgm+mla": several(make_pgm_mla),
    **{name: several(plain(config)) for name, config in BALANCED.items()},
    **PRIOR_METHODS,
}
FLAT: dict[str, type[Any]] = {**PLAIN, "mla": MLAConfig, **BALANCED, **PRIOR}


def method_names(modalities: tuple[str, ...]) -> list[str]:
    """Every name `--method` takes for a dataset with these modalities."""
    return [*METHODS, *(f"single:{m}" for m in modalities)]


def modalities_of(name: str, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities a method reads. Raises UserError for a name that is no method, suggesting the nearest."""
    if name in METHODS:
        return modalities
    single = name.removeprefix("single:")
    if single in modalities:
        return (single,)
    known = method_names(modalities)
    raise UserError(f"No method {name!r} for this dataset. There are: {', '.join(known)}.{nearest(name, known)}")


def choose(name: str, preset: str, shape: Shape, settings: Settings) -> tuple[MethodChoice, dict[str, Any]]:
    """The method called `name` with its configuration, and the settings that are none of its fields.

    `shape` holds the modalities the method reads (`modalities_of`).
    """
    if name in METHODS:
        config, rest = METHODS[name](preset, shape, settings)
        return MethodChoice(name, config), rest
    (modality,) = shape.modalities
    own, rest = changed(SingleConfig(**SingleConfig.values(preset), modality=modality), settings)
    return MethodChoice(f"single:{modality}", own), rest


def restored(described: Mapping[str, Any]) -> MethodChoice:
    """The choice that `MethodChoice.describe` wrote into a run's config.json."""
    name, values = str(described["name"]), {k: v for k, v in described.items() if k not in ("name", "version")}
    if name in ("pgm", "pgm+mla"):
        head, fusion = PgMConfig(**values["head"]), FusionConfig(**values["fusion"])
        if name == "pgm":
            return MethodChoice(name, PgMMethodConfig(head, fusion))
        return MethodChoice(name, PgMMLAConfig(head, fusion, AlternationConfig(**values["alternation"])))
    config = SingleConfig if name.startswith("single:") else FLAT[name.removesuffix("+pgm")]
    return MethodChoice(name, config(**values))
