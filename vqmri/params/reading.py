"""The text of params.yaml as plain values; nothing in it is run, and nothing in it can swell."""

from pathlib import Path
from typing import Any

import yaml

from vqmri.errors import ParamsError

MOST_VALUES = 100_000
"""Values with every alias (`*name`) written out. Nine lines of aliases can stand for a billion."""


def read_values(path: Path) -> Any:
    """What the file says; ParamsError when it is no YAML of plain values."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise ParamsError(
                f"{path} stands for more than {MOST_VALUES} values. Take out its aliases (*name); "
                "`vqmri init` writes a fresh one."
            )
        return loader.construct_document(node)
    except RecursionError:
        raise ParamsError(
            f"{path} is nested too deeply. `vqmri init` writes a fresh one."
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2001-99-99, or bytes of no text
        raise ParamsError(
            f"{path} is not YAML: {error}\nMend that line; `vqmri init` writes a fresh file."
        ) from None


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node and itself, aliases written out; `known`: those of nodes by their id.

    Raises YAMLError for a key that stands twice in one mapping.
    """
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # for one that contains itself
        if isinstance(node, yaml.MappingNode):
            _check_keys([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        below = (part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_size(part, known) for part in below)
    return known[id(node)]


def _check_keys(keys: list[yaml.ScalarNode]) -> None:
    """YAML's reader would let the last one win without a word; DVC refuses the file."""
    seen: set[tuple[str, str]] = set()
    for key in keys:
        if (key.tag, key.value) in seen:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
            )
        seen.add((key.tag, key.value))
