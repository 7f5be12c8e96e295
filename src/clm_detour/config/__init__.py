"""The run's description: `schema` says what may stand in a YAML, `load` reads and checks it."""

from clm_detour.config.loading import load_config, parse_selection
from clm_detour.config.schema import Config

__all__ = ["Config", "load_config", "parse_selection"]
