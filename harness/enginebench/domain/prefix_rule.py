"""What of a prompt an engine's prefix cache shares with later ones, as its own design says. Does not know engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from enginebench.domain.ids import JSON

Since: TypeAlias = Literal["scheduled", "computed", "answered"]


@dataclass(frozen=True)
class PrefixRule:
    """A prompt shares its beginning with later ones. Its last token is never shared, because an engine computes it to continue."""

    block_tokens: int = 1
    """Only whole blocks of so many tokens are shared."""
    since: Since = "scheduled"
    """From when on: as soon as it is in the batch, when all of it is computed, or when its request has ended."""

    @classmethod
    def of(cls, stored: JSON) -> PrefixRule | None:
        """The rule of a stored configuration; None where it has none."""
        if not isinstance(stored, dict):
            return None
        tokens, since = stored.get("block_tokens"), next((each for each in get_args(Since) if each == stored.get("since")), None)
        return cls(tokens, since) if isinstance(tokens, int) and tokens > 0 and since is not None else None
