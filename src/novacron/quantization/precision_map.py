"""Which level each matrix of a model is to have: a pure function of its name.

What is asked for, not what a machine can do: see resolution.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from novacron.config.weight_layers import Override, parse_weight_layers
from novacron.errors import ConfigError
from novacron.quantization.components import MATRICES, Component, component_of
from novacron.quantization.levels import Level, finest
from novacron.quantization.profiles import Profile, find_profile

_NAMES_SHOWN = 4


@dataclass(frozen=True)
class PrecisionMap:
    """A profile or a uniform level, by its name, and what is different from it: overrides, of which
    the last that matches a name counts. Names are those of a Llama checkpoint.

    Raises ConfigError if there is no profile of that name.
    """

    base: str = "none"
    overrides: tuple[Override, ...] = ()
    _profile: Profile = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_profile", find_profile(self.base))

    @classmethod
    def parse(cls, base: str, entries: Iterable[str] = ()) -> PrecisionMap:
        """`entries` are PATTERN=LEVEL or PATTERN=LEVEL/GROUP. Raises ConfigError."""
        return cls(base, parse_weight_layers(tuple(entries)))

    def level_of(self, name: str, *also: Component) -> Level | None:
        """The level of a matrix; None: as the model has it. One that serves as further components
        (an embedding that is the output head too) has the finest of their levels, unless an
        override names it."""
        component = component_of(name)
        if component is None:
            return None
        override = self._override_of(name)
        if override is not None:
            return override.level
        return finest(map(self.level_of_component, (component, *also)))

    def group_size_of(self, name: str) -> int | None:
        """That which an override gives a matrix; None: that of all others."""
        override = self._override_of(name)
        return None if override is None else override.group_size

    def _override_of(self, name: str) -> Override | None:
        matching = (one for one in reversed(self.overrides) if fnmatchcase(name, one.pattern))
        return next(matching, None)

    @property
    def levels(self) -> frozenset[Level]:
        """Those that matrices of a model may have."""
        of_matrices = [self._profile[part] for part in MATRICES & self._profile.keys()]
        return frozenset([*of_matrices, *(one.level for one in self.overrides)])

    def level_of_component(self, component: Component) -> Level | None:
        return self._profile.get(component)

    def check_patterns(self, names: Collection[str]) -> None:
        """Raises ConfigError if a pattern matches none of these matrices."""
        known = sorted(name for name in names if component_of(name) is not None)
        for override in self.overrides:
            if not any(fnmatchcase(name, override.pattern) for name in known):
                raise ConfigError(
                    f"quantization_layers has '{override}', but no matrix that can be "
                    f"rounded has such a name. There are {len(known)}, such as "
                    f"{', '.join(known[:_NAMES_SHOWN])}."
                )
