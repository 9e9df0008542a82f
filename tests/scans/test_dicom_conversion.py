"""What dcm2niix makes of a series."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.scans import dicom_files as files
from tests.scans.dicom_reading import assert_placed, find, only, outcomes
from vqmri.scans import dicom, dicom_conversion
from vqmri.scans.check import Refused

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"

pytestmark = pytest.mark.usefixtures("temporary")

UNDECODABLE: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "lossy 12 bit JPEG": (
        lambda: [files.compressed(n, "1.2.840.10008.1.2.4.51") for n in range(6)],
        "dicom-conversion",
    ),
    "MPEG2": (
        lambda: [files.compressed(n, "1.2.840.10008.1.2.4.100") for n in range(6)],
        "dicom-conversion",
    ),
    "damaged JPEG 2000": (
        lambda: [files.compressed(n, "1.2.840.10008.1.2.4.90") for n in range(6)],
        "dicom-conversion",
    ),
}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_dcm2niix_cannot_decode_is_refused(raw: Path, temporary: Path, name: str) -> None:
    make, code = UNDECODABLE[name]
    files.write(make(), raw)
    assert outcomes(raw) == {"IM0000": code}
    assert not list(temporary.iterdir())


def test_dcm2niix_is_stopped_in_time(raw: Path, temporary: Path) -> None:
    files.write(files.stack(), raw)
    with pytest.raises(Refused, match="dicom-conversion: dcm2niix took longer than 1e-05 s"):
        dicom.read(raw, only(raw), timeout_s=1e-5)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("change", ["shift", "lose a slice"])
def test_a_conversion_that_is_not_faithful_is_refused(
    raw: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    convert = dicom_conversion.convert

    def worse(folder: Path, timeout_s: float) -> Path:
        path = convert(folder, timeout_s)
        image: Any = nib.load(path)
        data, affine = np.asarray(image.dataobj).copy(), image.affine.copy()
        affine[2, 3] += 0.3
        kept = (data, affine) if change == "shift" else (data[..., 1:], image.affine)
        nib.save(nib.Nifti1Image(*kept), path)
        return path

    monkeypatch.setattr(dicom_conversion, "convert", worse)
    files.write(files.stack(), raw)
    assert outcomes(raw) == {"IM0000": "dicom-conversion"}


@pytest.mark.parametrize(
    ("code", "outputs", "refusal"),
    [
        (0, 0, "not-one-volume: dcm2niix made 0 volumes of it"),
        (0, 2, "not-one-volume: dcm2niix made 2 volumes of it"),
        (-11, 1, "dicom-conversion: dcm2niix ended with exit code -11: it was killed"),
        (10, 1, "exit code 10: it found an incomplete volume"),
        (99, 1, "exit code 99: see its documentation"),
    ],
)
def test_what_dcm2niix_leaves_is_heeded(
    raw: Path, monkeypatch: pytest.MonkeyPatch, code: int, outputs: int, refusal: str
) -> None:
    def pretended(command: list[str], **options: Any) -> Any:
        for number in range(outputs):
            Path(options["cwd"], "out", f"volume{number}.nii").touch()
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", pretended)
    files.write(files.stack(), raw)
    with pytest.raises(Refused, match=refusal):
        dicom.read(raw, only(raw))


def test_a_users_defaults_file_means_nothing(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dcm2nii.ini").write_text("isGZ=1\nisCrop=1\nisMaintain16BitPrecision=0\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write(files.stack(), raw)
    assert_placed(dicom.read(raw, only(raw))[0])


def test_nothing_that_dcm2niix_prints_is_seen(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = subprocess.run
    seen: list[Any] = []

    def watched(command: list[str], **options: Any) -> Any:
        seen.append((command, options["env"]))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    files.write(files.stack(ProtocolName="CANARY"), raw / "Doe^Jane")
    dicom.read(raw, only(raw))
    assert capfd.readouterr() == ("", "")
    ((command, environment),) = seen
    assert not any("Doe" in word for word in [*command, *environment.values()])


REFERENCES = {
    "siemens_xa30_enhanced_t1w/5_anat-T1w_acq-tfl": "5_anat-T1w_acq-tfl.nii",
    "siemens_xa30_enhanced_t1w/6_anat-T1w_acq-tfl": "6_anat-T1w_acq-tfl.nii",
}


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize("name", REFERENCES)
def test_real_volumes_are_those_of_the_reference(name: str) -> None:
    volume, _ = dicom.read(REAL, next(c for c in find(REAL) if c.source.startswith(name)))
    reference: Any = nib.load(REAL / Path(name).parent / "ref_dcm2niix" / REFERENCES[name])
    assert np.array_equal(volume.data[0], np.asarray(reference.dataobj, dtype=np.float32))
    assert volume.affine is not None
    assert np.allclose(volume.affine, reference.affine, atol=1e-4)
