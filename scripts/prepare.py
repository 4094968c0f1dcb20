"""Turns a published data set, or your own images, into manifests that the bundles read.

python scripts/prepare.py glas Warwick_QU_Dataset data/glas
python scripts/prepare.py glas --help     the options of one data set, where to download it, and what is written

No images are copied.
"""

from __future__ import annotations

import argparse
import ast
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from shared.front_door import begin_script


def data_sets() -> dict[str, str]:
    """The docstring of each data set's module, by its name; no module is imported for that."""
    found = {}
    for path in sorted((ROOT / "scripts/preparation").glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "prepare" for node in module.body):
            found[path.stem] = ast.get_docstring(module) or ""
    return found


def main() -> None:
    begin_script()
    known = data_sets()
    # The first word that is no option: only the module of this data set is imported.
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(title="data sets", metavar="NAME", required=True)
    if name and name not in known:
        meant = " or ".join(get_close_matches(name, known, n=3))
        hint = f"was {meant} meant?" if meant else f"choose from {', '.join(known)}"
        parser.error(f"there is no data set {name!r}: {hint}")
    parsers = {
        each: commands.add_parser(each, help=text.split("\n")[0], description=text, formatter_class=plain)
        for each, text in known.items()
    }
    if name:
        module = import_module(f"scripts.preparation.{name}")
        module.add_arguments(parsers[name])
        parsers[name].set_defaults(prepare=module.prepare)
    arguments = parser.parse_args()
    try:
        for line in arguments.prepare(arguments):
            print(line)
    except argparse.ArgumentError as error:
        parsers[name].error(str(error))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
