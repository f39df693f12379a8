"""``python -m lit_aigc.generate``: samples from a bundle, pictures of its latent space, codes of images."""

from __future__ import annotations

from typing import Any

from lit_aigc.config.command import command
from lit_aigc.machine.exit_codes import DONE


def main(config: dict[str, Any]) -> int:
    """Write what the config asks for, and return the exit code."""
    from lit_aigc.generate.run import generate

    generate(config)
    return DONE


if __name__ == "__main__":
    command("generate", main)
