"""The licences of all that lit_aigc depends on, extras included; leaves with 1 if one is not known to be permissive.

    python .ci/licences.py

Reads what the installed packages say of themselves: it needs no network. What isn't installed here is left out.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

PERMISSIVE = (
    "MIT", "BSD", "Apache", "ISC", "PSF", "Python Software Foundation", "HPND", "Historical Permission", "MPL",
    "Mozilla Public License", "Unlicense", "Zlib", "CC0", "CC-BY-4.0", "0BSD", "CNRI-Python", "OFL", "Zero-Clause",
    "3-Clause", "2-Clause",
)  # fmt: skip
OF_DRAWINGS = "CC-BY-SA-4.0"  # of the extra with OpenMoji's drawings, which are data and in no file of ours
OF_NVIDIA = ("nvidia-", "cuda-")  # proprietary, free to use: they come with torch where it is built for GPUs


def licence(package: Distribution) -> str:
    """In the words of the package: the SPDX expression, else classifiers, free text, or the title of the licence."""
    about = package.metadata
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier", []) if c.startswith("License")]
    free = next((line.strip() for line in (about.get("License") or "").splitlines() if line.strip()), "")
    return about.get("License-Expression") or ", ".join(classifiers) or free.replace("UNKNOWN", "") or title(package)


def title(package: Distribution) -> str:
    """The first line of the file LICENSE."""
    texts = [file.read_text(encoding="utf-8") for file in package.files or () if file.name.upper().startswith("LICEN")]
    return next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "unknown")


def packages(name: str, extras: tuple[str, ...]) -> dict[str, Distribution]:
    """The installed package and all that it needs, by their names in lower case."""
    found: dict[str, Distribution] = {}
    waiting = [(name, extras)]
    while waiting:
        name, extras = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        if key in found and not extras:
            continue
        found[key] = package
        for requirement in package.requires or []:
            match = re.match(r"([\w.-]+)(?:\[([\w, -]+)\])?", requirement)
            extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
            needed = re.sub(r"[-_.]+", "-", match[1]).lower()
            if (not extra or extra[1] in extras) and (needed not in found or match[2]):
                wanted = tuple(part.strip() for part in match[2].split(",")) if match[2] else ()
                waiting.append((match[1], wanted))
    return found


def main() -> int:
    """Print the list; the exit code."""
    own = distribution("lit-aigc")
    found = packages("lit-aigc", tuple(own.metadata.get_all("Provides-Extra", [])))
    doubtful = []
    for name, package in sorted(found.items()):
        words = licence(package)
        print(f"{name:32} {package.version:14} {words[:90]}")
        if (
            words != OF_DRAWINGS
            and not name.startswith(OF_NVIDIA)
            and not any(re.search(rf"\b{re.escape(known)}", words, re.IGNORECASE) for known in PERMISSIVE)
        ):
            doubtful.append(name)
    print(f"{len(found)} packages" + (f"; look at the licences of {', '.join(doubtful)}" if doubtful else ""))
    return bool(doubtful)


if __name__ == "__main__":
    sys.exit(main())
