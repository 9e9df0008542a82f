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
        assert row["bytes_per_item"] > 100
    assert [digest(finished.output(name)) for name in MADE_BY] == before


def test_a_forecast_is_of_the_measured_rates() -> None:
    found = {"encode": {"items_per_second": 2.0, "bytes_per_item": 5e6}}
    head, line = scale.forecast(found, 360_000)
    assert "360000 items" in head
    assert line.split() == ["encode", "50.0", "3", "1800.0"]
