"""What the sources share: where to note, what to hold, what to put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_repro.common.whose_code import Site, find_site
from keras_repro.watching.holds import Entropy, Plan
from keras_repro.watching.observations import Audit
from keras_repro.watching.patches import Patches

if TYPE_CHECKING:
    from keras_repro.watching.sources.files import FileWatcher

WORD = 2**32  # Seeds are made of numbers below it.
_NUM_SEED_BYTES = 32


class Watcher:
    """What every source needs."""

    def __init__(
        self, audit: Audit, plan: Plan, files: FileWatcher | None = None
    ) -> None:
        # `files` is `None` where files are not watched.
        self.audit, self.plan, self.files = audit, plan, files
        self.entropy = Entropy(plan.keys)
        self.patches = Patches()

    def draw(self, name: str, num_bytes: int) -> bytes:
        """Fresh bytes for a function, noted."""
        site = find_site()
        if not self.audit.is_muted:
            self.audit.note_entropy(name, site)
        return self.entropy.draw(name, place_of(site), num_bytes)

    def take_seed(self, name: str, seed: Any, generator: str = "") -> Any:
        """A seed for a function: the one that it is given, or a fresh one."""
        if seed is None:
            return self.draw_number(name)
        return self.audit.note_seed(generator, name, seed)

    def is_freed(self, generator: str) -> bool:
        """Whether the place that draws now is let draw anew."""
        freed = self.plan.freed
        if not freed or self.audit.is_muted or self.audit.is_seeded(generator):
            return False
        site = find_site()
        return site is not None and f"{generator} {site.place}" in freed

    def draw_number(self, name: str) -> int:
        """A fresh seed for a function, noted."""
        return int.from_bytes(self.draw(name, _NUM_SEED_BYTES), "little")


def place_of(site: Site | None) -> str:
    """A place that tells two lines of a library from each other too."""
    return "" if site is None else f"{site.place}|{site.at}"


def methods_of(instance: object, module: Any) -> list[str]:
    """The functions of a module that are methods of one instance."""
    return [
        name
        for name, value in vars(module).items()
        if getattr(value, "__self__", None) is instance
    ]
