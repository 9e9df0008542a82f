import json

import pytest

from benchmarks import scale
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs.manifest import digest


@pytest.mark.services
@pytest.mark.long
@pytest.mark.timeout(600)
def test_one_and_two_workers_give_the_same_bytes(
    finished: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [digest(finished.output(name)) for name in MADE_BY]
    assert scale.main(["--project", str(finished.root)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.pop("benchmark") == "scale"
    assert list(found) == ["ingest", "encode", "sample"]
    for row in found.values():
        assert row["same_bytes"] == 1
        assert row["times_faster"] == row["seconds_1"] / row["seconds_2"] > 0
        assert row["items_per_second"] > 0
    assert [digest(finished.output(name)) for name in MADE_BY] == before
