"""What may be done to a scan on its own grid, before it is made like all others."""

from collections.abc import Sequence
from pathlib import Path

from vqmri.scans.bias import correct_bias
from vqmri.scans.commands import deface, mask_brain
from vqmri.scans.volume import Steps, Volume


def prepare(
    scan: Volume,
    *,
    deface_by: Sequence[str] | None,
    mask_by: Sequence[str] | None,
    bias_correction: bool,
    scratch: Path | None = None,
) -> tuple[Volume, Steps]:
    """The face off, the brain found, the bias field out; and what was done.

    deface_by, mask_by: commands of the user's, see `commands`; a scan may come with a mask
    scratch: folder in which the commands find the scan for a while
    Raises Refused when a command or the correction fails.
    """
    steps: Steps = []
    if deface_by:
        scan, done = deface(scan, deface_by, scratch)
        steps += done
    if mask_by:
        scan, done = mask_brain(scan, mask_by, scratch)
        steps += done
    elif scan.mask is not None:
        steps.append({"step": "mask", "program": None, "voxels": int(scan.mask.sum())})
    if bias_correction:
        scan, done = correct_bias(scan)
        steps += done
    return scan, steps
