"""What a package exports says what it is: shapes, numbers, errors, and the source of its science.

Looked at: all that stands in an `__all__`, with its public methods and fields. Their values may be
explained by the class; a method inherits the docstring of the one which it overrides. Errors are
looked for in every module, where a `raise` stands in what is public.
"""

import ast
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from tests.conftest import REPO
from vqmri import shapes

PACKAGES = [
    ".".join(path.parent.relative_to(REPO).parts)
    for top in ("vqmri", "flows")
    for path in sorted((REPO / top).rglob("__init__.py"))
    if "__all__ = " in path.read_text(encoding="utf-8")
]
EXPORTS = [
    (package, name)
    for package in PACKAGES
    for name in importlib.import_module(package).__all__
    if not isinstance(getattr(importlib.import_module(package), name), click.Command)  # its help
]

MODULES = [
    path.relative_to(REPO)
    for path in sorted((REPO / "vqmri").rglob("*.py"))
    if path.parent.name != "cli"  # whose docstrings are the help of commands
]

_AXES = {
    axis.lstrip("*")
    for alias in vars(shapes).values()
    for axis in getattr(alias, "dim_str", "").split()
}
SHAPE = re.compile(
    rf"\((?=[^()]*[,*])[^()]*(?<!\w)(?:item|{'|'.join(sorted(_AXES))})(?!\w)[^()]*\)|\bscalars?\b"
)
"""A shape in the words of `vqmri.shapes`, such as (batch, *grid), or a scalar."""

PLAIN = re.compile(r"num_\w+|\w+_(?:s|mm|bits|bytes)")
"""Names of numbers that say what is counted, or in which unit."""

PRIVATE = re.compile(r"_(?!_init__|_post_init__|_call__)")

SOURCE = re.compile(r"\b(?:19|20)\d\d[a-z]?\b|arXiv:\d{4}\.\d{5}|\b\w+/\w+-|[Σ‖∩½²−]|\w = |\blog")
"""The year of a paper, its arXiv number, a repository, or an equation."""

SCIENCE = {
    "quantizers.base": ["straight_through", "pull"],
    "quantizers.clusters": ["kmeans"],
    "quantizers.codebook_loss": ["CodebookLossQuantizer"],
    "quantizers.ema": ["EMAQuantizer"],
    "quantizers.ema_codebook": ["EMACodebook"],
    "quantizers.nearest": ["nearest", "squared_distances"],
    "quantizers.projected": ["ProjectedQuantizer", "projection_gains"],
    "vqvae.blocks": ["ResidualBlock", "depth_to_space"],
    "vqvae.objective": ["objective"],
    "vqvae.residual": ["Residual"],
    "vqvae.vqvae": ["VQVAE"],
    "prior.attention": ["CausalAttention"],
    "prior.choice": ["Choice"],
    "prior.covariates": ["hide"],
    "prior.gain": ["GaussianGain"],
    "prior.hierarchy": ["Prior"],
    "prior.objective": ["nats"],
    "prior.pixelcnn": ["PixelCNN", "gate"],
    "prior.sampler": ["jacobi"],
    "training.autoencoding": ["Autoencoding"],
    "training.average": ["averaged"],
    "training.optim": ["adamw", "Muon", "orthogonal", "warmup_cosine"],
    "evaluation.accuracy": ["relative", "r_squared", "obedience"],
    "evaluation.anatomy": ["histogram_distance", "ks_distance"],
    "evaluation.codebook": ["entropy_bits"],
    "evaluation.distances": [
        "frechet_distance", "mmd_squared_biased",
    ],
    "evaluation.features": ["RandomNet", "WeightsFile"],
    "evaluation.intervals": ["bootstrap", "subsampled"],
    "evaluation.likelihood": ["item_bits"],
    "evaluation.marginals": ["PositionMarginals"],
    "evaluation.membership": ["auc", "true_positives"],
    "evaluation.memorisation": ["share_nearer"],
    "evaluation.neighbourhoods": ["neighbourhoods"],
    "evaluation.reconstruction": [
        "psnr_in_view", "ssim_in_view", "ms_ssim_in_view", "pairwise_ms_ssim", "dice",
        "dice_of_labels",
    ],
    "evaluation.segmentation": ["Segmenter"],
    "evaluation.structure": ["neighbour_divergence", "pairwise_difference"],
    "scans.bias": ["correct_bias"],
}  # fmt: skip
"""Modules below `vqmri`, and what in them is a method of science: its source must be said."""


def test_packages_are_found() -> None:
    assert {"vqmri.outputs", "vqmri.prior", "vqmri.quantizers"} <= set(PACKAGES)


@pytest.mark.parametrize(("package", "name"), EXPORTS)
def test_export_says_what_it_is(package: str, name: str) -> None:
    assert "\n".join(faults_of_export(package, name)) == ""


@pytest.mark.parametrize("module", SCIENCE)
def test_science_has_a_source(module: str) -> None:
    tree = ast.parse((REPO / "vqmri" / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    texts = {
        node.name: f"{ast.get_docstring(node)} {ast.get_docstring(tree)}"
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    assert [name for name in SCIENCE[module] if not SOURCE.search(texts[name])] == []


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_errors_are_named(path: Path) -> None:
    assert list(unnamed_errors(ast.parse((REPO / path).read_text("utf-8")))) == []


def faults_of_export(package: str, name: str) -> list[str]:
    """What is missing; none of a name that is documented as it should be."""
    thing = getattr(importlib.import_module(package), name)
    if inspect.isclass(thing):
        return list(faults_of_class(thing))
    if inspect.isfunction(thing):
        return list(faults_of_function(thing, name, thing.__doc__ or ""))
    return [] if constant_is_explained(package, name) else [f"{name}: no text below it"]


def faults_of_class(cls: type) -> Iterator[str]:
    about = vars(cls).get("__doc__") or ""
    if not about or about.startswith(f"{cls.__name__}("):  # which `dataclass` writes by itself
        yield f"{cls.__name__}: no docstring"
    if not issubclass(cls, BaseModel):  # whose fields have descriptions
        fields = {n: hint for n, hint in hints(cls).items() if n in inspect.get_annotations(cls)}
        yield from faults_of_values(fields, cls.__name__, about)
    for name, member in vars(cls).items():
        function = inspect.unwrap(getattr(member, "fget", getattr(member, "__func__", member)))
        if not inspect.isfunction(function) or function.__code__.co_filename.startswith("<"):
            continue  # no function, or one that `dataclass` wrote
        if name in ("__init__", "__post_init__"):
            own = function.__doc__ or ""
            yield from faults_of_function(function, cls.__name__, f"{about}\n{own}")
        elif not name.startswith("_") or name == "__call__":
            own = inherited_docstring(cls, name)
            yield from faults_of_function(function, f"{cls.__name__}.{name}", own, about)


def faults_of_function(
    function: Callable[..., Any], name: str, about: str, above: str = ""
) -> Iterator[str]:
    """about: its docstring; above: that of its class, where values may be explained too."""
    if not about:
        yield f"{name}: no docstring"
    values = hints(function)
    returned = values.pop("return", None)
    yield from faults_of_values(values, name, f"{above}\n{about}")
    if is_bare_array(returned) and not SHAPE.search(f"{above}\n{about}"):
        yield f"{name}: no shape of what is returned"


def faults_of_values(values: dict[str, Any], name: str, about: str) -> Iterator[str]:
    """Of arguments or fields: arrays need a shape, numbers a word on what they are."""
    for value, hint in values.items():
        if value.startswith("_"):
            continue
        if is_bare_array(hint) and not (mentioned(value, about) and SHAPE.search(about)):
            yield f"{name}: no shape of {value}"
        if is_number(hint) and not (PLAIN.fullmatch(value) or mentioned(value, about)):
            yield f"{name}: no word on {value}"


def unnamed_errors(tree: ast.Module) -> Iterator[str]:
    """Errors behind a `raise` in what is public of a module, that no docstring there names."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    helpers = {f.name: ast.unparse(f.returns) for f in functions if f.returns}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        for function in ast.walk(node):
            if not isinstance(function, ast.FunctionDef) or PRIVATE.match(function.name):
                continue
            about = f"{ast.get_docstring(node)} {ast.get_docstring(function)}"
            for error in raised(function, helpers):
                if not mentioned(error, about):
                    yield f"{function.name}: {error}"


def raised(function: ast.FunctionDef, helpers: Mapping[str, str]) -> Iterator[str]:
    """Names of errors; that of a helper is the type that it returns, a variable has none."""
    for node in ast.walk(function):
        whole = node.exc if isinstance(node, ast.Raise) else None
        for part in whole.values if isinstance(whole, ast.BoolOp) else [whole]:
            error = part.func if isinstance(part, ast.Call) else part
            if isinstance(error, ast.Name | ast.Attribute):
                name = error.attr if isinstance(error, ast.Attribute) else error.id
                if name in helpers or name[0].isupper():
                    yield helpers.get(name, name)


def constant_is_explained(package: str, name: str) -> bool:
    """Whether a text stands below the assignment, wherever the name comes from."""
    tree = ast.parse(Path(str(importlib.import_module(package).__file__)).read_text("utf-8"))
    for statement, following in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        match statement:
            case ast.ImportFrom(module=str(origin)) if any(a.name == name for a in statement.names):
                return constant_is_explained(origin, name)
            case (
                ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found))
            ):
                if found == name:
                    value = following.value if isinstance(following, ast.Expr) else None
                    return isinstance(value, ast.Constant) and isinstance(value.value, str)
    return False


def inherited_docstring(cls: type, name: str) -> str:
    """The method's own, or that of the method of this project which it overrides."""
    ours = (c for c in cls.__mro__ if c.__module__.split(".")[0] in ("vqmri", "flows", "tests"))
    return next((d for c in ours if (d := getattr(vars(c).get(name), "__doc__", None))), "")


def is_bare_array(hint: Any) -> bool:
    """Whether there is an array whose axes the annotation does not name."""
    return any(part in (Tensor, np.ndarray) for part in parts(hint))


def is_number(hint: Any) -> bool:
    return any(part in (int, float) for part in parts(hint))


def parts(hint: Any) -> Iterator[Any]:
    """All types that an annotation is made of, but for what a function takes or gives."""
    yield hint
    if typing.get_origin(hint) is not typing.get_origin(Callable[..., Any]):
        for part in typing.get_args(hint):
            yield from parts(part)


def hints(thing: Any) -> dict[str, Any]:
    return typing.get_type_hints(inspect.unwrap(thing), include_extras=True)


def mentioned(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


class Plain(NamedTuple):
    """Has nothing on its fields."""

    codes: Tensor
    rate: float


class Partly:
    """Two methods, of which one is silent.

    values: (batch, *grid)
    """

    def silent(self) -> None:
        pass

    def told(self, values: Tensor, rate: float) -> Tensor:
        """The values."""
        return values


def whole(codes: Float[Tensor, "batch *grid"], rate: float, num_items: int) -> Tensor:
    """Something of (batch, *grid). rate: per step"""
    return codes * rate * num_items


RAISING = '''
def outer(value):
    """Raises KeyError."""
    if value:
        raise KeyError(value)
    raise _refusal()

def _refusal() -> "OSError": ...

class Named:
    """ValueError for nothing."""

    def __init__(self, fault):
        raise fault or ValueError

    def method(self):
        raise module.StrangeError("so")

    def _private(self):
        raise IndexError
'''


def test_what_is_missing_is_seen() -> None:
    assert list(faults_of_class(Plain)) == [
        "Plain: no shape of codes", "Plain: no word on rate",
    ]  # fmt: skip
    assert list(faults_of_class(Partly)) == [
        "Partly.silent: no docstring",
        "Partly.told: no word on rate",
    ]
    assert list(faults_of_function(whole, "whole", whole.__doc__ or "")) == []
    assert list(faults_of_function(is_number, "is_number", "")) == ["is_number: no docstring"]
    assert list(unnamed_errors(ast.parse(RAISING))) == ["outer: 'OSError'", "method: StrangeError"]
    assert not SOURCE.search("The nearest vector of the codebook, as everybody does it.")
