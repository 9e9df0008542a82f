"""Pages of the report about the samples: what they are like, what they are good for, whose."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vqmri.evaluation.montage import Plane, montage, scatter
from vqmri.evaluation.report import Section
from vqmri.evaluation.viewer import Viewer, grey
from vqmri.protocols import Metrics
from vqmri.stages.findings import Found, Shown
from vqmri.stages.meanings import figure, number, table
from vqmri.stages.realism import FAKES, SAMPLES, TELLING

_REALISM = (
    "Sets of {count} volumes, each against {count} held-out scans, in features of a net with "
    "random weights and in those of the project's own encoder. The row of training scans is what "
    "other people's real scans reach at this number; ratios are over it. The last are known fakes."
)
_MEASURES = ("frechet_ratio", "mmd_ratio", "coverage_ratio", "precision", "recall", "density")
_ORDER = ("training scans", "reconstructions of held-out scans", SAMPLES, *FAKES)


def samples_page(found: Found, shown: Shown, gallery: tuple[str, bytes]) -> list[Section]:
    """Pictures, realism, statistics of the volumes, gates."""
    metrics = found.metrics
    first = Section(
        "Samples",
        "Synthetic scans: codes drawn from the prior, decoded. Scroll through each beside the "
        "training scan most like it: a memorised scan would be a copy.",
        table(metrics, ["samples", "unique_samples", "diversity_ms_ssim",
                        "diversity_ms_ssim_of_real"]),
        [gallery],
        page="Samples",
        viewers=_viewers(shown),
    )  # fmt: skip
    return [first, _realism(found), *_statistics(found), _gates(found)]


def _viewers(shown: Shown) -> list[Viewer]:
    if shown.samples.ndim != 5:
        return []
    x, y, z = shown.spacing
    return [
        Viewer(
            "Samples (above) and the training scan nearest to each (below).",
            [(f"sample {i}", grey(sample[0])) for i, sample in enumerate(shown.samples)],
            (x, y, z),
            [(f"nearest, r = {r:.3f}", grey(scan[0])) for scan, r in shown.neighbours],
        )
    ]


def _realism(found: Found) -> Section:
    realism = found.realism
    if not realism.count:
        return Section(
            "Realism",
            "Not measured: with so few held-out scans, training subjects or samples distances "
            "between sets say nothing. Train on more subjects, hold out more scans "
            "(ingest.held_out), and draw as many samples (sample.count).",
            page="Samples",
        )
    spaces = sorted({m.partition(" ")[2] for m in realism.rows[SAMPLES]})
    names = [f"{m} {space}".strip() for space in spaces for m in _MEASURES]
    names = [name for name in names if name in realism.rows[SAMPLES]]
    rows = [(each, *(_cell(realism.rows[each], name) for name in names)) for each in _ORDER]
    blind = [
        f"{measure} takes {', '.join(fakes)} for real, so it is no gate."
        for measure, fakes in realism.blind.items()
        if fakes
    ]
    bounds = "; ".join(f"{gate.name} {gate.bound}" for gate in TELLING)
    text = _REALISM.format(count=realism.count)
    return Section(
        "Realism",
        " ".join([text, f"Every fake must miss {bounds}, or the measure is no gate.", *blind]),
        table(found.metrics, [g.name + end for end in ("", "_encoder") for g in TELLING]),
        head=("set", *(name.replace("_", " ") for name in names)),
        rows=rows,
        page="Samples",
    )


def _cell(figures: Metrics, name: str) -> str:
    return number(figures[name]) if name in figures else ""


def _statistics(found: Found) -> list[Section]:
    if not found.realism.count:
        return []
    return [
        Section(
            "Statistics of the volumes",
            "Mean ± deviation of single volumes. The distance is that of Kolmogorov and Smirnov, "
            "for histograms of intensities that of Jensen and Shannon in bits.",
            head=(
                "statistic",
                "held-out scans",
                "samples",
                "distance",
                "distance of training scans",
            ),
            rows=found.realism.statistics,
            page="Samples",
        )
    ]


def _gates(found: Found) -> Section:
    if not found.verdicts:
        text = "There are none: `evaluate: gates:` in params.yaml sets them for `vqmri promote`."
        return Section("Gates", text, page="Samples")
    rows = [
        (v.name, v.bound, "not measured" if v.value is None else number(v.value),
         "passes" if v.passed else "fails")
        for v in found.verdicts
        if not v.fooled
    ]  # fmt: skip
    fooled = [f"{v.name} is no gate here: it takes a known fake for real."
              for v in found.verdicts if v.fooled]  # fmt: skip
    text = "What a model must reach to become champion (`vqmri promote`)."
    return Section("Gates", " ".join([text, *fooled]), head=("figure", "bound", "found", "verdict"),
                   rows=rows, page="Samples")  # fmt: skip


_USE = {
    "labels": "Dice of a segmentation net on {held_out} held-out scans; higher is better.",
    "categorical": "Accuracy of a classifier on {held_out} held-out scans, and the Classification "
    "Accuracy Score (synthetic − chance) / (real − chance).",
    "continuous": "R² of a regressor on {held_out} held-out scans, and its mean absolute error.",
}


def use_page(found: Found) -> list[Section]:
    """What nets learnt from samples, and whether samples show what was asked for."""
    sections = [
        Section(
            f"Use: {row['name']}",
            _USE[row["kind"]].format(**row)
            + f" The same net learnt for {row['steps']} steps from {row['real']} real scans, from "
            f"{row['synthetic']} samples, and from both.",
            _learnt(row),
            _pictures(row, arrays),
            page="Use",
        )
        for row, arrays in zip(found.used.rows, found.used.arrays, strict=True)
    ]
    if not sections:
        text = (
            "Not measured: params.yaml has no section `use`, or the samples were asked for nothing "
            "that could be learnt from them (sample.covariates, or label maps)."
        )
        sections = [Section("Use", text, page="Use")]
    if found.ventricles:
        sections.append(_ventricles(found))
    return sections


def _learnt(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    figures: Metrics = row["figures"]
    names = [n for n in figures if not n.endswith(("_low", "_high"))]
    meanings = {
        "real": "trained on real scans",
        "synthetic": "trained on samples alone",
        "both": "trained on both",
        "chance": "by guessing",
        "cas": "of 1 when samples teach as much as real scans",
        "obeyed": "samples that show what was asked for, by the net that learnt from real scans"
        if row["kind"] == "categorical"
        else "correlation of what was asked for and what such a net sees in samples",
        "obeyed_slope": "slope of that; 1 is right",
        "reconstructed": "the net that learnt from real scans, on held-out scans through codes",
        "synthetic_over_real": "of 1 when samples teach as much as real scans",
    }
    return [(n.replace("_", " "), figure(figures, n), meanings.get(n, "")) for n in names]


def _pictures(row: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[tuple[str, bytes]]:
    if row["kind"] == "labels":
        most = max(float(arrays["truth"].max()), 1.0)
        columns = ["grey", "truth", "real", "synthetic", "both"]
        rows: list[list[Plane]] = [
            [arrays[name][i] / (1 if name == "grey" else most) for name in columns]
            for i in range(len(arrays["grey"]))
        ]
        titles = ["held-out scan", "its labels", "learnt from real", "from samples", "from both"]
        return [
            ("Held-out scans and what the nets make of them", montage(rows, titles, [], scale=4))
        ]
    if row["kind"] == "continuous":
        series = {
            "real scans": (arrays["truth"], arrays["real"]),
            "samples": (arrays["asked"], arrays["seen"]),
        }
        text = f"{row['name']}: of held-out scans and asked of samples, and as the net sees it"
        return [(text, scatter(series, row["name"], "seen by the net that learnt from real scans"))]
    return []


def _ventricles(found: Found) -> Section:
    v = found.ventricles
    series = {side: (v[f"{side}_age"], v[f"{side}_volume"]) for side in ("real", "samples")}
    names = ("ventricle_slope_real", "ventricle_slope_samples", "ventricle_slope_ratio")
    return Section(
        "Ventricles and age",
        "Fluid in the middle of phantoms' heads by age, and in samples by the age asked for.",
        table(found.metrics, names),
        [("cm³ of fluid by age", scatter(series, "age, years", "cm³"))],
        page="Use",
    )


def privacy_page(found: Found) -> list[Section]:
    """What was tested, what it found, and what it is compared with."""
    if not found.privacy.findings:
        return [Section("Privacy", "Not tested: no scan is held out.", page="Privacy")]
    text = (
        "What was tested, and what was found. Every finding stands beside what chance or real "
        "people give. Other tests may find more; that these find nothing proves nothing else."
    )
    if not any("overtrained" in finding[0] for finding in found.privacy.findings):
        text += " Whether they would find a copy was not tried: set evaluate.control_steps."
    head = ("test", "found", "compare with", "reading")
    return [Section("Privacy", text, head=head, rows=found.privacy.findings, words=True,
                    page="Privacy")]  # fmt: skip
