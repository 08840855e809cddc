"""Options that several commands share."""

from __future__ import annotations

from enum import Enum


class Scope(str, Enum):
    """Scopes that ``trace`` can show."""

    all = "all"
    semantic = "semantic"
    contrast = "contrast"
    fisher = "fisher"
    temperature = "temperature"


class Method(str, Enum):
    """Scopes whose influence can be followed through the model from the command line."""

    semantic = "semantic"
    contrast = "contrast"
    fisher = "fisher"
    temperature = "temperature"
    total_information = "total_information"
    moment = "moment"
