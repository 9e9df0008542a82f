"""The trained models → the registry, and there to champion, if they are good enough."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vqmri.errors import InputError, IntegrityError, ParamsError
from vqmri.evaluation.gates import Gate, GateError, check, is_worse, with_intervals
from vqmri.layout import Layout
from vqmri.outputs import Manifest, digest
from vqmri.outputs.rehearsal import rehearsed
from vqmri.stages.train_prior import REGISTERED as GENERATOR
from vqmri.stages.train_vqvae import REGISTERED as VQVAE
from vqmri.tracking import registry
from vqmri.training.model_folder import DESCRIPTION

_METRICS = "metrics.json"

log = logging.getLogger(__name__)


def promote(data: Layout, root: Path, gates: Sequence[Gate]) -> dict[str, Any]:
    """Make the models of data/vqvae and data/prior champion in the registry of `root`.

    They must be registered, pass every gate, and in no gated metric of data/report be worse than
    the generator that is champion. What was champion becomes `previous`.

    Raises ParamsError without gates, IntegrityError when the report is of other models, InputError
    when they are not registered, GateError when they are not good enough, OSError when the registry
    does not answer. In a rehearsal the registry is read and not changed.
    """
    if not gates:
        raise ParamsError(
            "there are no gates, so nothing says when a model is good enough. Add them to "
            "params.yaml, as in\nevaluate:\n  gates:\n    psnr_db: {least: 22}"
        )
    models = _models(data)
    metrics, volumes = _reported(data)
    with registry.answering(root):
        versions = {name: _registered(name, folders) for name, folders in models.items()}
        found = with_intervals(gates, metrics)
        _check(gates, metrics, volumes, versions[GENERATOR])
        champions = {name: registry.champion_of(name) for name in versions}
        moved = {name: was for name, was in champions.items() if was != versions[name]}
        if rehearsed():
            return _told("would be promoted", moved, versions, found)
        registry.note_measured(
            GENERATOR, versions[GENERATOR], {"metrics": found, "volumes": volumes}
        )
        former = {name: registry.make_champion(name, versions[name]) for name in moved}
    return _told("promoted", former, versions, found)


def _told(
    outcome: str,
    former: Mapping[str, int | None],
    versions: Mapping[str, int],
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "outcome": outcome if former else "already champion",
        "champion": versions,
        "previous": former,
        "metrics": metrics,
    }


def register(data: Layout, root: Path) -> dict[str, Any]:
    """Make the models of data/vqvae and data/prior, wherever they were trained, new versions.

    They are challengers then. A model whose weights a version holds already is left as it is.

    Raises InputError or IntegrityError when the models are not there, whole, and of one another,
    OSError when the registry does not answer. In a rehearsal nothing is registered, and a version
    that would be new has no number.
    """
    models = _models(data)
    for folder in models[GENERATOR].values():
        manifest = Manifest.read(folder)
        manifest.check(folder, manifest.items)
    outcome: dict[str, Any] = {}
    if rehearsed() and not registry.is_there(root):
        return {name: {"version": None, "new": True} for name in models}
    with registry.answering(root):
        for name, folders in models.items():
            there = registry.versions_with(name, folders)
            version = there[0] if there else None
            if version is None and not rehearsed():
                version = registry.add(name, folders, root)
            outcome[name] = {"version": version, "new": not there}
    return outcome


def _models(data: Layout) -> dict[str, dict[str, Path]]:
    """Registered name to folders; the generator last. IntegrityError if they do not belong."""
    folders = {name: data.need(name) for name in ("vqvae", "prior")}
    about = {}
    for name, folder in folders.items():
        Manifest.read(folder).check(folder, [DESCRIPTION])
        about[name] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["about"]
    if about["prior"]["vqvae_weights"] != about["vqvae"]["weights"]:
        raise IntegrityError(
            f"{folders['prior']} was trained on codes of another VQ-VAE "
            f"({about['prior']['vqvae_weights'][:16]}) than {folders['vqvae']} "
            f"({about['vqvae']['weights'][:16]}). Train the prior again with `vqmri train_prior`."
        )
    return {VQVAE: {"vqvae": folders["vqvae"]}, GENERATOR: folders}


def _reported(data: Layout) -> tuple[dict[str, float], str]:
    """The report's metrics, and what stands for the volumes that they were measured on."""
    folder = data.need("report")
    manifest = Manifest.read(folder)
    manifest.check(folder, [_METRICS])
    inputs: Mapping[str, str] = manifest.provenance["inputs"]
    for name in ("vqvae", "prior"):
        if inputs[name] != (now := digest(data.need(name))):
            raise IntegrityError(
                f"{folder} is of another model ({inputs[name][:16]}) than {data.output(name)} "
                f"({now[:16]}). Run `vqmri evaluate`."
            )
    return json.loads((folder / _METRICS).read_text(encoding="utf-8")), inputs["volumes"]


def _registered(name: str, folders: Mapping[str, Path]) -> int:
    """The version with these weights: the champion if it is one, else the newest."""
    versions = registry.versions_with(name, folders)
    if not versions:
        raise InputError(
            f"no version of {name} in the registry holds the weights of "
            f"{' and '.join(map(str, folders.values()))}. Register them with `vqmri register`."
        )
    champion = registry.champion_of(name)
    return champion if champion in versions else versions[0]


def _check(gates: Sequence[Gate], metrics: Mapping[str, float], volumes: str, version: int) -> None:
    """GateError unless all gates are passed, and the champion, if it is another, is not better."""
    verdicts = check(gates, metrics)
    champion = registry.champion_of(GENERATOR)
    best, worse = {}, []
    if champion not in (None, version):
        best = _of_champion(gates, volumes, champion)
        worse = is_worse(gates, metrics, best)
    if worse or not all(verdict.passed for verdict in verdicts):
        lines = ["This model is not good enough to be champion; no alias was moved."]
        lines += [f"  {verdict}" for verdict in verdicts]
        lines += [f"  {_better(name, metrics, best)} (version {champion})" for name in worse]
        lines.append("Train a better one, or change evaluate.gates in params.yaml.")
        raise GateError("\n".join(lines))


def _of_champion(gates: Sequence[Gate], volumes: str, version: int) -> dict[str, float]:
    """What was measured of it, with a warning where that does not compare."""
    noted = registry.measured(GENERATOR, version)
    metrics: dict[str, float] = noted.get("metrics", {})
    if lacking := [gate.name for gate in gates if gate.name not in metrics]:
        log.warning(
            "Of the champion, version %d, these were never measured, so they are not compared: %s.",
            version,
            ", ".join(lacking),
        )
    if metrics and noted["volumes"] != volumes:
        log.warning("The champion, version %d, was measured on other volumes.", version)
    return metrics


def _better(name: str, metrics: Mapping[str, float], champion: Mapping[str, float]) -> str:
    ends = [f"{champion[key]:.6g}" for key in (f"{name}_low", f"{name}_high") if key in champion]
    interval = f", 95 % interval {' to '.join(ends)}" if ends else ""
    found = f"{metrics[name]:.6g}" if name in metrics else "not measured"
    return f"{name}: {found}, the champion has {champion[name]:.6g}{interval}"
