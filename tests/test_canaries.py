"""What a patient's header says must not leave: from a scanner's export to what a user would share.

The raw files themselves are passed over, and nothing else: DVC hashes what a stage depends on and
keeps no copy of it. Without a subject key the paths of the raw files stand in outputs by design, so
no name holds a canary.
"""

import gzip
import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
import zarr
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEG2000Lossless

from tests.conftest import tiny_values
from tests.scans import dicom_files as files

FILES_OF_A_SERIES = 5
GOOD = 13
STUDY = str(3**30)  # digits of an identifier
BIRTH = str(19470000 + 1117)
TEXTS = [f"Kestrel{hashlib.sha256(bytes([n])).hexdigest()[:8]}" for n in range(48)]
CANARIES = [STUDY, BIRTH, *TEXTS]
"""Made here, so that no copy of this file holds one."""

STANDARD = [
    ("PatientName", "PN"), ("PatientID", "LO"), ("OtherPatientIDs", "LO"),
    ("PatientAddress", "LO"), ("PatientComments", "LT"), ("PatientBirthName", "PN"),
    ("PatientMotherBirthName", "PN"), ("ReferringPhysicianName", "PN"), ("InstitutionName", "LO"),
    ("InstitutionAddress", "ST"), ("StationName", "SH"), ("StudyDescription", "LO"),
    ("SeriesDescription", "LO"), ("ProtocolName", "LO"), ("SequenceName", "SH"),
    ("OperatorsName", "PN"), ("AccessionNumber", "SH"), ("StudyID", "SH"),
    ("ImageComments", "LT"), ("DeviceSerialNumber", "LO"), ("BodyPartExamined", "CS"),
    ("ManufacturerModelName", "LO"), ("RequestingPhysician", "PN"), ("MedicalAlerts", "LO"),
]  # fmt: skip
PRIVATE, NESTED = TEXTS[24:36], TEXTS[36:]

ERROR_IN_FULL = """
import logging, pathlib
logging.basicConfig(level=logging.DEBUG)
from vqmri.stages.run import run
run("ingest", pathlib.Path.cwd())
"""


def plant_all(made: Dataset, person: int) -> None:
    """Every canary in a field of its own; only the age, the sex and the pixels are as usual."""
    for (tag, kind), canary in zip(STANDARD, TEXTS, strict=False):
        files.plant(made, tag, kind, canary)
    made.PatientID = f"{TEXTS[1]} {person}"
    made.PatientBirthDate = BIRTH
    made.StudyInstanceUID = f"{files.STUDY}.{STUDY}.{person}"
    block = made.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    for number, canary in enumerate(PRIVATE):
        kind = ("LO", "UT", "OB")[number % 3]
        block.add_new(number, kind, canary.encode() + b"\0" if kind == "OB" else canary)
    item = Dataset()
    for number, canary in enumerate(NESTED):
        inner = Dataset()
        inner.PersonName = inner.CodeMeaning = canary
        item.private_block(0x0031, f"MAKER {number}", create=True).add_new(1, "UT", canary)
        item.add_new(0x00080000 + 0x1110 + number, "SQ", Items([inner]))
    made.RequestAttributesSequence = Items([item])


def without_a_slice() -> list[Any]:
    return [image for number, image in enumerate(files.stack(6)) if number != 2]


def of_another_kind(tag: str, kind: str) -> list[Any]:
    made: list[Any] = list(files.stack(FILES_OF_A_SERIES))
    files.plant(made[0], tag, kind, TEXTS[3])
    return made


def two_files_of_one_name() -> list[Any]:
    made: list[Any] = list(files.stack(FILES_OF_A_SERIES))
    made[1].SOPInstanceUID = made[0].SOPInstanceUID
    return made


def text_for_a_number() -> list[Any]:
    """The position, as long as a canary; `export` puts one there."""
    made: list[Any] = list(files.stack(FILES_OF_A_SERIES))
    made[0].ImagePositionPatient = ["-30.12345678901", "12", "40"]
    return made


def compressed() -> list[Any]:
    return [files.compressed(number, JPEG2000Lossless) for number in range(FILES_OF_A_SERIES)]


REFUSED: dict[str, tuple[str, Callable[[], list[Any]]]] = {
    "a": ("slices-missing", without_a_slice),
    "b": ("not-mr", lambda: of_another_kind("Modality", "CS")),
    "c": ("not-real", lambda: of_another_kind("PhotometricInterpretation", "CS")),
    "d": ("not-one-volume", two_files_of_one_name),
    "e": ("unreadable", text_for_a_number),
    "f": ("dicom-conversion", compressed),
    "g": ("unreadable", lambda: list(files.stack(FILES_OF_A_SERIES))),  # cut short by `export`
}
"""Folder of a series to the code of its refusal, and its images."""


def export(raw: Path) -> None:
    """100 files: 13 series of different people that are read, and 7 that are refused."""
    series: dict[str, list[Any]] = {
        f"good{person:02d}": list(files.stack(FILES_OF_A_SERIES)) for person in range(GOOD)
    }
    series |= {name: make() for name, (_, make) in REFUSED.items()}
    for person, (name, images) in enumerate(series.items()):
        for image in images:
            image.SeriesInstanceUID = f"{files.STUDY}.{STUDY}.{person}.1"
            image.PatientAge, image.PatientSex = f"0{20 + person}Y", "FM"[person % 2]
            plant_all(image, person)
            if name in ("b", "c"):
                image.PatientAge = None  # so that the date of birth is asked
        paths = files.write(images, raw / name)
        first = paths[0].read_bytes()
        if name == "e":
            paths[0].write_bytes(first.replace(b"-30.12345678901", TEXTS[5].encode()))
        if name == "g":
            paths[0].write_bytes(first[:-50])


# The search


def base64_of(data: bytes) -> Iterator[bytes]:
    """What base64 makes of data, wherever in a longer text it begins; only the sure characters."""
    for shift, first in enumerate((0, 2, 3)):
        yield b64encode(bytes(shift) + data)[first : (shift + len(data)) * 8 // 6]


def forms(canary: str) -> tuple[set[bytes], set[bytes]]:
    """How a text may be written: looked for in any case, and as it stands."""
    small = canary.lower()
    texts = {small.encode(coding) for coding in ("utf-8", "utf-16-le", "utf-16-be")}
    cases = {canary, small, canary.upper()}
    codes = {text.encode().hex().encode() for text in cases}
    return texts | codes, {code for text in cases for code in base64_of(text.encode())}


FORMS = {canary: forms(canary) for canary in CANARIES}


def contents(path: Path) -> Iterator[bytes]:
    """Name and bytes of a file, and what its compression hides."""
    data = path.read_bytes()
    yield path.name.encode()
    yield data
    if data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    if data.startswith(b"\x89PNG"):
        with Image.open(path) as image:
            yield repr(image.info).encode()
    if path.name == "zarr.json" and json.loads(data)["node_type"] == "array":
        yield zarr.open_array(path.parent, mode="r")[...].tobytes()  # type: ignore[union-attr]


def canaries_in(data: bytes) -> set[str]:
    low = data.lower()
    return {
        canary
        for canary, (anyhow, exactly) in FORMS.items()
        if any(form in low for form in anyhow) or any(form in data for form in exactly)
    }


def leaks(folder: Path, but: Path | None = None) -> dict[str, set[str]]:
    """File below `folder` to the canaries in it; what lies below `but` is passed over."""
    paths = (p for p in folder.rglob("*") if p.is_file() and not (but and p.is_relative_to(but)))
    found = {
        str(path.relative_to(folder)): {c for data in contents(path) for c in canaries_in(data)}
        for path in paths
    }
    return {name: canaries for name, canaries in found.items() if canaries}


def in_a_gzip(folder: Path, canary: str) -> None:
    (folder / "scan.nii.gz").write_bytes(gzip.compress(bytes(348) + canary.encode()))


def in_a_png(folder: Path, canary: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", canary, zip=True)
    Image.new("L", (4, 4)).save(folder / "picture.png", pnginfo=text)


def in_a_database(folder: Path, canary: str) -> None:
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("CREATE TABLE params (value TEXT)")
        database.execute("INSERT INTO params VALUES (?)", (f"age of {canary}",))
    database.close()


def as_an_attribute(folder: Path, canary: str) -> None:
    zarr.open_group(folder / "volumes.zarr", mode="a").attrs["covariates"] = {"who": canary}


def as_bytes(change: Callable[[str], bytes]) -> Callable[[Path, str], None]:
    """A way to write what `change` makes of a canary at the end of a published table."""

    def plant(folder: Path, canary: str) -> None:
        table = folder / "rejections.tsv"
        table.write_bytes(table.read_bytes() + change(canary))

    return plant


WAYS: dict[str, Callable[[Path, str], None]] = {
    "utf-8": as_bytes(str.encode),
    "upper case": as_bytes(lambda text: text.upper().encode()),
    "utf-16-le": as_bytes(lambda text: text.encode("utf-16-le")),
    "utf-16-be": as_bytes(lambda text: text.encode("utf-16-be")),
    "hex": as_bytes(lambda text: text.encode().hex().encode()),
    "hex in capitals": as_bytes(lambda text: text.encode().hex().upper().encode()),
    "base64": as_bytes(lambda text: b64encode(text.encode())),
    "base64 one byte on": as_bytes(lambda text: b64encode(b"?" + text.encode() + b"?")),
    "base64 two bytes on": as_bytes(lambda text: b64encode(b"??" + text.encode() + b"??")),
    "gzip": in_a_gzip,
    "picture": in_a_png,
    "database": in_a_database,
    "attribute": as_an_attribute,
    "name of a file": lambda folder, text: (folder / f"sub-{text}.json").touch(),
}


def check_the_search(outputs: Path, copy: Path) -> None:
    """What is not found in the outputs is found in a copy of them once it is written there."""
    for way, plant in WAYS.items():
        for canary in (BIRTH, TEXTS[0]):
            shutil.copytree(outputs, copy)
            plant(copy, canary)
            assert set().union(*leaks(copy).values()) == {canary}, way
            shutil.rmtree(copy)


# The test


def said(checkout: Path, shell: dict[str, str], *command: str, code: int = 0) -> str:
    """What a command prints, on either channel."""
    done = subprocess.run(
        command, cwd=checkout, env=shell, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def runs(checkout: Path) -> list[tuple[str, str]]:
    """Name and end of all runs in the project's own MLflow."""
    with sqlite3.connect(checkout / "mlruns/mlflow.db") as database:
        found = database.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()
    database.close()
    return found


@pytest.fixture
def project(checkout: Path) -> Path:
    export(checkout / "data/raw")
    values = tiny_values()
    values["ingest"] |= {"raw": "data/raw", "held_out": 0.3}
    values["ingest"]["source"] = {"kind": "dicom", "covariates": ["age", "sex"]}
    (checkout / "params.yaml").write_text(yaml.safe_dump(values))
    return checkout


@pytest.fixture
def watched(shell: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment whose temporary files stay below `tmp_path`, and whose warnings are said."""
    for name in ("tmp", "dvc"):
        (tmp_path / name).mkdir()
    return shell | {
        "TMPDIR": str(tmp_path / "tmp"),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "dvc"),
        "PYTHONWARNINGS": "always",
    }


def test_no_canary_leaves(project: Path, watched: dict[str, str], tmp_path: Path) -> None:
    raw, outputs = project / "data/raw", project / "data/volumes"
    assert sum(len(found) == len(CANARIES) == 50 for found in leaks(raw).values()) == 100

    spoken = said(project, watched, "dvc", "repro", "-v", "ingest")
    assert "data/volumes" in (project / "dvc.lock").read_text()
    table = (outputs / "rejections.tsv").read_text()
    assert dict(re.findall(r"^(\w)/IM0000\t([\w-]+)", table, re.MULTILINE)) == {
        name: code for name, (code, _) in REFUSED.items()
    }
    said(project, watched, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "shared"))
    spoken += said(project, watched, "dvc", "push", "-v", "ingest")
    spoken += said(project, watched, "git", "add", "--all", "--verbose")
    assert "data/raw/good" not in spoken

    for person in range(GOOD):
        shutil.rmtree(raw / f"good{person:02d}")
    spoken += said(project, watched, "dvc", "repro", "-v", "ingest", code=255)
    in_full = said(project, watched, sys.executable, "-c", ERROR_IN_FULL, code=1)
    assert re.search(r"DEBUG:.*Traceback.*InputError: 7 of 7 scans", in_full, re.DOTALL)

    assert runs(project) == [("ingest", "FINISHED"), ("ingest", "FAILED"), ("ingest", "FAILED")]
    for store in (project / ".dvc/cache", tmp_path / "shared"):
        assert len(list(store.rglob("files/md5/*/*"))) > 5
    assert canaries_in((spoken + in_full).encode()) == set()
    assert leaks(tmp_path, but=raw) == {}
    assert not list((tmp_path / "tmp").rglob("*.dcm"))
    check_the_search(outputs, tmp_path / "copy")
