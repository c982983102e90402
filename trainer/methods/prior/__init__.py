"""The prior models of Table 4, head-only, each alone and with PgM in its fusion's place."""

from .mmim import MMIMConfig
from .self_mm import SelfMMConfig
from .unimeec import UniMEECConfig
from .unimse import UniMSEConfig

__all__ = ["MMIMConfig", "SelfMMConfig", "UniMEECConfig", "UniMSEConfig"]
