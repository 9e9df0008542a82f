"""Find the scans of a BIDS data set by their names, and what its tables say of them.

Names: https://bids-specification.readthedocs.io/en/stable/common-principles.html
They are parsed here: bids2table, which was tried, lost data sets whose folder has a dot in its
name, and took names that the specification forbids.
"""

import csv
import glob
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqmri.errors import InputError
from vqmri.scans import image_file, kinds, nifti
from vqmri.scans.check import Refused
from vqmri.scans.nifti import value
from vqmri.scans.volume import Candidate, Volume

PARTICIPANTS = "participants.tsv"
_UNKNOWN = "unknown"  # subject of a file that no reader will accept

_NAME = re.compile(
    r"sub-(?P<sub>[A-Za-z0-9+]+)(?P<entities>(?:_[A-Za-z0-9]+-[A-Za-z0-9+]+)*)"
    r"_(?P<suffix>[A-Za-z0-9]+)\.(?i:nii(?:\.gz)?)"
)
_LAYOUT = "sub-LABEL/[ses-LABEL/]DATATYPE/sub-LABEL[_ses-LABEL][_KEY-LABEL…]_SUFFIX.nii[.gz]"
_GLOBS = ("sub-*/*/*", "sub-*/ses-*/*/*")  # deep enough, and no link is a loop
_NOT_RAW = ("derivatives", "sourcedata")

Row = Mapping[str, str]


@dataclass(frozen=True)
class Name:
    """What the path of an image says.

    source: relative to the data set
    session, acquisition: labels, "" where the name has none
    """

    source: str
    subject: str
    session: str
    acquisition: str
    suffix: str


def find(
    raw: Path,
    *,
    suffix: str,
    sessions: Collection[str] | None,
    acquisitions: Collection[str] | None,
    covariates: Sequence[str],
) -> list[Candidate]:
    """Scans of a suffix in the data set `raw`, sorted by path; runs of a session are several.

    sessions, acquisitions: labels to take; None takes all, and images without one
    covariates: columns of the subject's sessions.tsv, for an image of a session where it has the
        column, else of participants.tsv; None where the value or the row is missing
    All scans of a sub-LABEL are that subject's. An image of the suffix that is not named as BIDS
    has it is a candidate too, for `read` to refuse. Hidden folders, derivatives and sourcedata are
    not looked into. Raises InputError when nothing is found, a folder may not be listed, a label or
    a column is not there, a name contradicts its folder, or a table has lost the zeros of a label
    or has two different rows of one person.
    """
    sources = _sources(raw)
    names = [name for name in _names(sources) if name.suffix == suffix]
    if not names:
        raise InputError(_nothing(raw, suffix, sources))
    for name in names:
        _check_place(name)
    names = _chosen(names, "session", sessions)
    names = _chosen(names, "acquisition", acquisitions)
    values = _Values(raw, names, covariates)
    found = [Candidate(name.source, name.subject, covariates=values.of(name)) for name in names]
    found += [Candidate(source, _UNKNOWN, {}) for source in _misnamed(sources, suffix)]
    return sorted(found, key=lambda candidate: candidate.source)


def read(raw: Path, candidate: Candidate) -> tuple[Volume, str]:
    """The volume in a file and the sha256 of the file; Refused also for a name that is no BIDS."""
    if not _parse(candidate.source):
        raise Refused("not-bids-named", f"it lies in a data set where names are {_LAYOUT}")
    return nifti.read(nifti.locate(raw, candidate.source))


def tables(raw: Path, candidates: Iterable[Candidate]) -> list[str]:
    """Paths relative to `raw` of the tables that there are of the candidates' subjects."""
    subjects = sorted({candidate.subject for candidate in candidates})
    paths = [raw / PARTICIPANTS, *(_sessions_table(raw, subject) for subject in subjects)]
    return [path.relative_to(raw).as_posix() for path in paths if path.is_file()]


def _sources(raw: Path) -> list[str]:
    """All images in folders that are looked into, sorted by path; no file is opened."""
    for form in _GLOBS:
        kinds.check_listed(raw, form)
    # pathlib's glob takes several times as long, seconds for 40,000 images
    found = (Path(name) for form in _GLOBS for name in glob.iglob(form, root_dir=raw))  # noqa: PTH207
    return sorted(
        path.as_posix()
        for path in found
        if image_file.is_image(path) and path.parent.name not in _NOT_RAW
    )


def _names(sources: Iterable[str]) -> list[Name]:
    return [name for source in sources if (name := _parse(source))]


def _misnamed(sources: Iterable[str], suffix: str) -> list[str]:
    """Those that end as images of the suffix do and are not named as BIDS has it."""
    end = re.compile(rf"(.*[^A-Za-z0-9])?{re.escape(suffix)}")
    return [s for s in sources if not _parse(s) and end.fullmatch(image_file.stem(Path(s)))]


def _parse(source: str) -> Name | None:
    """What a path says; None where it is not of BIDS."""
    found = _NAME.fullmatch(Path(source).name)
    if not found:
        return None
    entities = dict(pair.split("-") for pair in found["entities"].split("_")[1:])
    session, acquisition = entities.get("ses", ""), entities.get("acq", "")
    return Name(source, found["sub"], session, acquisition, found["suffix"])


def _check_place(name: Name) -> None:
    labels = {"sub": name.subject, "ses": name.session}
    for folder in Path(name.source).parts[:-1]:
        key, _, label = folder.partition("-")
        if key in labels and labels[key] != label:
            raise InputError(
                f"{name.source} lies in {folder} and is not named so. Whose it is decides who is "
                "held out: rename it or move it."
            )


def _chosen(names: list[Name], entity: str, labels: Collection[str] | None) -> list[Name]:
    """The images that have one of the labels; each label must be there."""
    if labels is None:
        return names
    there = {getattr(name, entity) for name in names} - {""}
    if missing := sorted(set(labels) - there):
        raise InputError(
            f"ingest.source.{entity}: no {names[0].suffix} image has the {entity} {missing[0]!r}; "
            f"there are {sorted(there)}. Choose from these, or take it out."
        )
    return [name for name in names if getattr(name, entity) in labels]


def _nothing(raw: Path, suffix: str, sources: Sequence[str]) -> str:
    there = sorted({name.suffix for name in _names(sources)})
    text = f"{raw} has no scan {_LAYOUT.replace('SUFFIX', suffix)}"
    if strange := _misnamed(sources, suffix):
        text += f"; {len(strange)} files, as {strange[0]}, are not named so"
        return f"{text}. Rename them, or take `kind: nifti`."
    if there:
        return f"{text}; the suffixes there are {there}. Set ingest.source.suffix to one of these."
    if not (raw / "dataset_description.json").is_file():
        text += ", and no dataset_description.json: is it the folder of a BIDS data set?"
        if inside := sorted({path.parent.name for path in raw.glob("*/sub-*")}):
            text += f" Perhaps it is {inside[0]!r} in it."
        return f"{text} For files in any other order there is `kind: nifti`."
    return f"{text}. Set ingest.raw to the data set that has some."


class _Values:
    """The covariates of images, from the tables of the data set."""

    def __init__(self, raw: Path, names: Sequence[Name], covariates: Sequence[str]) -> None:
        self._covariates = covariates
        self._people: dict[str, Row] = {}
        self._sessions: dict[str, dict[str, Row]] = {}
        self._session_columns: dict[str, list[str]] = {}
        if not covariates:
            return
        columns, self._people = _read(raw / PARTICIPANTS, "participant_id", "sub-", covariates)
        subjects = sorted({name.subject for name in names})
        _check_zeros(raw, subjects, self._people)
        for subject in subjects:
            self._session_columns[subject], self._sessions[subject] = _read(
                _sessions_table(raw, subject), "session_id", "ses-", covariates
            )
        others = sorted({name for some in self._session_columns.values() for name in some})
        if missing := [name for name in covariates if name not in {*columns, *others}]:
            raise InputError(
                f"ingest.source.covariates: {missing[0]!r} is no column of {raw / PARTICIPANTS}, "
                f"which {f'has {columns}' if columns else 'is missing or empty'}"
                + (f", nor of sub-*_sessions.tsv, which have {others}" if others else "")
                + ". Add the column, or take the covariate out."
            )

    def of(self, name: Name) -> dict[str, str | float | None]:
        """Those of one image."""
        person = self._people.get(name.subject, {})
        session = self._sessions.get(name.subject, {}).get(name.session, {})
        own = self._session_columns.get(name.subject, ()) if name.session else ()
        rows = {column: session if column in own else person for column in self._covariates}
        return {column: value(row.get(column, "")) for column, row in rows.items()}


def _check_zeros(raw: Path, subjects: Sequence[str], people: Collection[str]) -> None:
    """A spreadsheet makes 1 of 01; such a person would seem to be one who is not listed."""
    for subject in subjects:
        if subject not in people and (short := subject.lstrip("0")) in people:
            raise InputError(
                f"{raw / PARTICIPANTS} lists {short!r} and not {subject!r}, of whom there are "
                "images. Write the zeros as the folders have them."
            )


def _sessions_table(raw: Path, subject: str) -> Path:
    return raw / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"


def _read(
    path: Path, key: str, prefix: str, covariates: Sequence[str]
) -> tuple[list[str], dict[str, Row]]:
    """Columns of a table beside its key, and its rows by label; nothing if there is no table."""
    if not path.is_file():
        return [], {}
    rows: dict[str, Row] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t", restval="")
            columns = list(reader.fieldnames or ())
            if key not in columns:
                raise InputError(
                    f"{path} has no column {key!r}; it has {columns}. Name its column so, as BIDS "
                    "has it."
                )
            for row in reader:
                label = row[key].strip().removeprefix(prefix)
                first = rows.setdefault(label, row)
                if any(first.get(name) != row.get(name) for name in covariates):
                    raise InputError(
                        f"{path} has two different rows of {prefix}{label}. Remove the wrong one."
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table in UTF-8: {error}. Save it as one.") from None
    return [name for name in columns if name != key], rows
