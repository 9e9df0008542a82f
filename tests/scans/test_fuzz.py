"""Whatever stands in a file, it gives a volume or a refusal, soon and in little memory."""

import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, Verbosity, given, settings
from hypothesis import strategies as st
from nibabel.freesurfer.mghformat import header_dtype

from tests.scans.test_image_file import MGH, packed, pair_header
from tests.scans.test_nifti import MEGABYTE, SHAPE, nifti_header, scan_bytes, voxels
from vqmri.scans import nifti
from vqmri.scans.check import Refused

SECONDS = 5
MEGABYTES = {False: 4, True: 72}
"""Peak of memory, by whether the file is gzipped: 64 MB of zeros are no suspicious scan."""


def pair_bytes(**options: Any) -> bytes:
    return bytes(pair_header(**options).binaryblock) + bytes(4)


def short(**options: Any) -> Any:
    """int16 with a scale, so that more of the header matters."""
    header = nifti_header(dtype=np.int16, **options)
    header["scl_slope"], header["scl_inter"] = 0.5, 3
    return header


SCALED = bytes(short().binaryblock) + bytes(4) + voxels().astype("<i2").tobytes("F")
FIRST, SECOND = nib.Nifti1Header.template_dtype, nib.Nifti2Header.template_dtype
FILES: dict[str, tuple[str, bytes, np.dtype[Any]]] = {
    "NIfTI-1": (".nii", scan_bytes(voxels()), FIRST),
    "NIfTI-1, scaled": (".nii", SCALED, FIRST),
    "NIfTI-2": (".nii", scan_bytes(voxels(), second=True), SECOND),
    "big-endian": (".nii", scan_bytes(voxels(), endian=">"), FIRST.newbyteorder(">")),
    "gzipped": (".nii.gz", scan_bytes(voxels()), FIRST),
    "pair": (".hdr", pair_bytes(), FIRST),
    "pair of NIfTI-2": (".hdr", pair_bytes(second=True), SECOND),
    "MGH": (".mgh", MGH, header_dtype),
    "MGZ": (".mgz", MGH, header_dtype),
}
"""Suffix, bytes and header of a good file of each kind; only the kinds of header differ."""


def outcome(raw: bytes, suffix: str) -> str:
    """The code of the refusal, or "accepted"; fails on anything else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scan{suffix}"
        path.write_bytes(packed(raw, path.name))
        if suffix == ".hdr":
            path.with_suffix(".img").write_bytes(voxels().tobytes("F"))
        tracemalloc.start()
        begin = time.perf_counter()
        try:
            volume, sha256 = nifti.read(path)
            code = "accepted"
        except Refused as refused:
            code = refused.code
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert time.perf_counter() - begin < SECONDS
    assert peak < MEGABYTES[suffix in {".nii.gz", ".mgz"}] * MEGABYTE
    if code == "accepted":
        assert volume.affine is not None
        assert np.isfinite(volume.affine).all()
        assert np.isfinite(volume.data).all()
        assert min(volume.data.shape) >= 1
        assert volume.data.ndim == 4
        assert volume.data.size <= np.prod(SHAPE) * 4  # as many voxels as there are bytes
        assert len(sha256) == 64
    return code


def extreme(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    """A value of a header's field, near a bound of its type more often than not."""
    if dtype.kind == "S":
        return st.binary(max_size=dtype.itemsize)
    if dtype.kind == "f":
        bits = np.finfo(dtype).bits
        bounds = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-38, -1e-38, 3e38, -3e38, 1.0, -1.0, 2e9]
        return st.sampled_from(bounds) | st.floats(width=64 if bits == 64 else 32)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    bounds = [low, low + 1, -1, 0, 1, 2, 7, 8, 16, 352, 4096, high - 1, high]
    return st.sampled_from([n for n in bounds if low <= n <= high]) | st.integers(low, high)


@st.composite
def changed_fields(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good file of which one to four fields of the header are something else."""
    suffix, raw, dtype = FILES[draw(st.sampled_from(sorted(FILES)))]
    header = np.frombuffer(raw, dtype, 1).copy()
    names = [name for name in dtype.names or () if header[name].size]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)):
        field = header[name].reshape(-1)
        position = draw(st.integers(0, field.size - 1))
        with np.errstate(all="ignore"):
            field[position] = draw(extreme(field.dtype))
    return suffix, header.tobytes() + raw[dtype.itemsize :]


@st.composite
def changed_bytes(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good file of which one to eight bytes, most of them of the header, are something else."""
    suffix, whole, dtype = FILES[draw(st.sampled_from(sorted(FILES)))]
    raw = bytearray(whole)
    anywhere = st.integers(0, dtype.itemsize + 3) | st.integers(0, len(raw) - 1)
    for position in draw(st.lists(anywhere, min_size=1, max_size=8)):
        raw[min(position, len(raw) - 1)] = draw(st.integers(0, 255))
    return suffix, bytes(raw)


def fuzz(strategy: Any, examples: int, *, derandomize: bool) -> Counter[str]:
    codes: Counter[str] = Counter()

    @settings(
        max_examples=examples, deadline=None, derandomize=derandomize, database=None,
        suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet,
    )  # fmt: skip
    @given(strategy())
    def run(case: tuple[str, bytes]) -> None:
        codes[outcome(case[1], case[0])] += 1

    run()
    return codes


def test_every_file_is_good_as_it_is() -> None:
    for suffix, raw, _ in FILES.values():
        assert outcome(raw, suffix) == "accepted"


BOTH = pytest.mark.parametrize("strategy", [changed_fields, changed_bytes])


@BOTH
def test_a_changed_header_gives_a_volume_or_a_refusal(strategy: Callable[[], Any]) -> None:
    codes = fuzz(strategy, 200, derandomize=True)
    assert {"accepted", "unreadable"} <= set(codes)


@pytest.mark.long
@BOTH
def test_2000_changed_headers_give_volumes_or_refusals(strategy: Callable[[], Any]) -> None:
    begin = time.perf_counter()
    codes = fuzz(strategy, 2000, derandomize=False)
    print(strategy.__name__, dict(codes.most_common()), f"{time.perf_counter() - begin:.0f} s")
    assert sum(codes.values()) >= 2000
