"""Pages that the code writes, added when the site is built: commands, params.yaml, stages, library.

MkDocs calls `on_files` (mkdocs.yml: hooks). What these pages say stands in the code alone: help
texts, field descriptions and docstrings.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import Any

import click
import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from vqmri.cli import main
from vqmri.params import Params
from vqmri.stages import STAGES

PACKAGES = ("scans.volume", "scans.restore", "quantizers", "vqvae", "codes", "prior",
            "prior.sampler", "prior.cached_sampler", "training.generator", "outputs", "errors",
            "protocols", "layout")  # fmt: skip
"""What somebody who calls the library meets, in the order of the data's way."""

Schema = Mapping[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference."""
    pages = {"commands": commands(), "params": params(), "stages": stages(), "library": library()}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def commands() -> str:
    """Every command of `vqmri`, with its options."""
    parts = ["# Commands\n\nAs `vqmri --help` and `vqmri COMMAND --help` say it."]
    for name in [*STAGES, *(name for name in main.commands if name not in STAGES)]:
        command = main.commands[name]
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        names = " ".join([name, *(a.make_metavar(click.Context(command)) for a in arguments)])
        rows = [_option(p) for p in command.params if isinstance(p, click.Option)]
        parts.append(f"## vqmri {names}\n\n{cleandoc(command.help or '')}")
        if rows:
            parts.append(_table(("option", "value", "what"), rows))
    return "\n\n".join(parts) + "\n"


def _option(option: click.Option) -> tuple[str, str, str]:
    value = "" if option.is_flag else option.metavar or option.type.name or ""
    needed = " Must be given." if option.required else ""
    return f"`{option.opts[0]}`", value, (option.help or "") + needed


def params() -> str:
    """Every parameter of params.yaml, from the schema that reads it."""
    schema = Params.model_json_schema()
    intro = (
        "# params.yaml\n\nEvery number of a run stands there, a section per stage; unknown names "
        "are errors. `vqmri/presets/` has complete ones. A parameter without a default must be "
        "given."
    )
    return "\n\n".join([intro, *_sections("", schema, schema["$defs"])]) + "\n"


def _sections(path: str, schema: Schema, models: Schema) -> Iterator[str]:
    """A heading and a table for the model at `path`, then for each model inside it."""
    if path:
        yield f"## {path}"
    if path and (text := schema.get("description")):
        yield text
    fields, required = schema["properties"], schema.get("required", [])
    yield _table(
        ("parameter", "value", "default", "what"),
        [_field(path, name, spec, name in required, models) for name, spec in fields.items()],
    )
    for name, spec in fields.items():
        for model in _models_in(spec, models):
            kind = model["properties"].get("kind", {}).get("const")
            inner = f"{path}.{name}".lstrip(".") + (f" of kind {kind}" if kind else "")
            yield from _sections(inner, model, models)


def _field(path: str, name: str, spec: Schema, required: bool, models: Schema) -> tuple[str, ...]:
    default = "" if required else f"`{_yaml(spec.get('default'))}`"
    return f"`{name}`", _allowed(spec, models), default, spec.get("description", "")


def _yaml(value: Any) -> str:
    """A value as params.yaml may hold it, on one line; JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def _models_in(spec: Schema, models: Schema) -> Iterator[Schema]:
    """Sections that a field may hold, itself or in a list or a mapping."""
    if "$ref" in spec:
        yield models[spec["$ref"].rsplit("/", 1)[1]]
    for inner in [*spec.get("oneOf", ()), *spec.get("anyOf", ())]:
        yield from _models_in(inner, models)
    for key in ("items", "additionalProperties"):
        if isinstance(spec.get(key), Mapping):
            yield from _models_in(spec[key], models)


def _allowed(spec: Schema, models: Schema) -> str:
    """The type and bounds of a field, in words."""
    if "$ref" in spec:
        return "a section, below"
    if "const" in spec:
        return f"`{_yaml(spec['const'])}`"
    if "enum" in spec:
        return " or ".join(f"`{_yaml(value)}`" for value in spec["enum"])
    if choices := [*spec.get("oneOf", ()), *spec.get("anyOf", ())]:
        texts = dict.fromkeys(_allowed(choice, models) for choice in choices)
        return " or ".join(texts)
    if spec.get("type") == "array":
        return _list(spec, models)
    if spec.get("type") == "object":
        inner = [*spec.get("patternProperties", {}).values(), spec.get("additionalProperties")][0]
        return f"names, each with: {_allowed(inner, models)}"
    names = {"null": "null", "string": "text", "boolean": "true or false"}
    kind = str(spec.get("type", "anything"))
    return " ".join([names.get(kind, kind), *_bounds(spec)])


def _list(spec: Schema, models: Schema) -> str:
    if "prefixItems" in spec:
        each = dict.fromkeys(_allowed(item, models) for item in spec["prefixItems"])
        return f"list of {len(spec['prefixItems'])}: {' or '.join(each)}"
    least = f" of {spec['minItems']} or more" if spec.get("minItems") else ""
    return f"list{least}: {_allowed(spec.get('items', {}), models)}"


def _bounds(spec: Schema) -> list[str]:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    found = [f"{sign} {_number(spec[key])}" for key, sign in signs.items() if key in spec]
    if "multipleOf" in spec:
        found.append(f"a multiple of {spec['multipleOf']}")
    if "pattern" in spec:
        found.append(f"like `{spec['pattern']}`")
    return [", ".join(found)] if found else []


def _number(bound: float) -> str:
    """A large bound of whole numbers is a power of two."""
    exponent = int(abs(bound)).bit_length() - 1
    if exponent > 20 and abs(bound) == 2**exponent:
        return f"{'−' if bound < 0 else ''}2^{exponent}"
    return f"{bound:g}"


def stages() -> str:
    """The function of every stage."""
    intro = (
        "# Stages\n\nA stage reads published outputs and publishes its own; it knows neither "
        "Prefect nor DVC. The command `vqmri NAME` calls these with a tracker and MLflow."
    )
    return "\n\n".join([intro, *(_object(dotted.replace(":", ".")) for dotted in STAGES.values())])


def library() -> str:
    """The public names of the packages: those in `__all__`, or what a module itself defines."""
    parts = ["# Library\n\nShapes of arrays stand in the annotations."]
    for name in PACKAGES:
        module = griffe.load(f"vqmri.{name}")
        parts.append(f"## vqmri.{name}\n\n{module.docstring.value if module.docstring else ''}")
        parts += [_object(f"vqmri.{name}.{public}") for public in _public(module)]
    return "\n\n".join(parts) + "\n"


def _public(module: griffe.Object | griffe.Alias) -> list[str]:
    if module.exports is not None:
        return sorted(str(name) for name in module.exports)
    return [
        name
        for name, member in module.members.items()
        if not member.is_alias and not name.startswith("_") and member.has_docstring
    ]


def _object(dotted: str) -> str:
    return f"::: {dotted}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
