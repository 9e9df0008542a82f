import hashlib

from vqmri.scans.pseudonym import label, renamed
from vqmri.scans.volume import Candidate


def test_a_label_is_the_same_for_a_key_and_another_for_another() -> None:
    assert label("sub-Smith", "key") == label("sub-Smith", "key")
    assert label("sub-Smith", "key") != label("sub-Smith", "yek")
    assert label("sub-Smith", "key") != label("sub-Jones", "key")
    assert label("sub-Smith", "key").isalnum()
    assert label("sub-Smith", "key") not in hashlib.sha256(b"sub-Smith").hexdigest()


def test_candidates_have_other_names_and_are_read_from_where_they_lie() -> None:
    scans = [Candidate("a/Smith1.nii", "Smith", {}), Candidate("a/Smith2.nii", "Smith", {})]
    one, two = renamed(scans, "key", people=True)
    assert one.subject == two.subject == label("Smith", "key")
    assert one.name != two.name
    assert "Smith" not in one.name + one.subject
    assert one.source == "a/Smith1.nii"
    assert renamed(scans, "key", people=False)[0].subject == "Smith"
