"""``python -m lit_aigc.train``: train a model."""

from __future__ import annotations

from typing import Any

from lit_aigc.config.command import command


def main(config: dict[str, Any]) -> int:
    """Train what the config says, and return the exit code."""
    from lit_aigc.train.run import run

    return run(config)


if __name__ == "__main__":
    command("train", main)
