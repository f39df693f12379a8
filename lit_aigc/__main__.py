"""``python -m lit_aigc``, also ``lit-aigc``: list the verbs, or run one: ``lit-aigc train seed=1``."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

from lit_aigc import __version__
from lit_aigc.machine.exit_codes import BAD_INPUT, DONE


def verbs() -> dict[str, str]:
    """Return what each verb does, by its name: the first line of its package's ``__main__.py``."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*/__main__.py")):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        found[file.parent.name] = text.partition("\n")[0].partition(": ")[2]
    return found


def main() -> None:
    """Run the verb that the command line names, as ``python -m lit_aigc.VERB`` does; list them all without one."""
    known = verbs()
    verb, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if verb in known:
        sys.argv[1:] = arguments
        # Under its own name as __main__, so that a launcher starts further processes of the verb, not of this file.
        runpy.run_module(f"lit_aigc.{verb}", run_name="__main__", alter_sys=True)
    elif verb == "--version":
        print(f"lit_aigc {__version__}")
    elif verb in ("-h", "--help"):
        print("lit-aigc VERB [key=value ...], or python -m lit_aigc.VERB [key=value ...]; VERB --help lists its keys\n")
        for name, text in known.items():
            print(f"  {name:<{max(map(len, known))}}  {text}")
    else:
        print(f"lit_aigc: unknown verb {verb!r}; known: {', '.join(known)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    sys.exit(DONE)


if __name__ == "__main__":
    main()
