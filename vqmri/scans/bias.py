"""N4 bias field correction (Tustison et al., IEEE Trans. Med. Imaging 29, 2010) by SimpleITK."""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from vqmri.scans.check import Refused
from vqmri.scans.volume import Steps, Volume

ITERATIONS = (50, 50, 50, 50)
_SHRINK = 4  # the field is smooth: it is fitted to every fourth voxel of the long axes
_SMALLEST = 32  # voxels along an axis that is shrunk
_FEWEST = 200  # voxels that a field is fitted to


def correct_bias(scan: Volume) -> tuple[Volume, Steps]:
    """Divide each channel by its bias field; what was done.

    The field is fitted inside the brain mask, else above Otsu's threshold, and holds everywhere.
    Raises Refused when there are too few voxels above 0 to fit it to.
    """
    fields = [_field(channel, scan) for channel in scan.data]
    data = np.stack([channel / field for channel, field in zip(scan.data, fields, strict=True)])
    spans = [[round(float(field.min()), 4), round(float(field.max()), 4)] for field in fields]
    step = {"step": "bias", "iterations": list(ITERATIONS), "field": spans}
    return replace(scan, data=data), [step]


def _field(channel: Float[np.ndarray, "x y z"], scan: Volume) -> Float[np.ndarray, "x y z"]:
    import SimpleITK as sitk  # noqa: N813  (0.3 s, and few need it)

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums depend on the number of threads
    image: Any = sitk.GetImageFromArray(np.ascontiguousarray(channel.T))
    image.SetSpacing(scan.spacing)
    if scan.mask is None:
        mask = sitk.OtsuThreshold(image, 0, 1)
    else:
        mask = sitk.GetImageFromArray(np.ascontiguousarray(scan.mask.T.astype(np.uint8)))
        mask.CopyInformation(image)
    mask = sitk.And(mask, sitk.Cast(image > 0, sitk.sitkUInt8))
    factors = [_SHRINK if n >= _SMALLEST * 2 else 1 for n in image.GetSize()]
    small, inside = sitk.Shrink(image, factors), sitk.Shrink(mask, factors)
    if int(sitk.GetArrayViewFromImage(inside).sum()) < _FEWEST:
        raise Refused("not-positive", "there are too few voxels above 0 to fit a bias field to")
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.Execute(small, inside)
    logarithm = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    return np.exp(logarithm).astype(np.float32)
