"""The model card and the datasheet say what was done, whatever params.yaml says by now."""

import pytest

from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages.evaluate import evaluate
from vqmri.stages.realism import Realism


def card(data: Layout, name: str = "MODEL_CARD.md") -> str:
    return (data.output("report") / name).read_text()


def test_source_and_quantizer_are_those_of_the_outputs(copy_of_finished: Layout) -> None:
    values = tiny_values()
    values["ingest"]["source"] = {"kind": "auto"}
    quantizer = values["train_vqvae"]["quantizer"]
    assert quantizer["kind"] == "ema"
    quantizer["kind"] = "codebook_loss"
    del quantizer["decay"]
    evaluate(Params.model_validate(values), copy_of_finished)
    for name in ("MODEL_CARD.md", "DATASHEET.md"):
        assert "from a source of the kind phantom" in card(copy_of_finished, name)
    assert "quantizer ema" in card(copy_of_finished)


def test_a_gate_that_a_known_fake_reaches_is_told(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"frechet_ratio": 1.25, "frechet_ratio_fooled_by": 1.0}
    monkeypatch.setattr("vqmri.stages.evaluate.realism", lambda *_: Realism(0, figures, {}, {}, []))
    values = tiny_values()
    values["evaluate"]["gates"] = {"frechet_ratio": {"most": 2}}
    evaluate(Params.model_validate(values), copy_of_finished)
    text = card(copy_of_finished)
    assert "| frechet_ratio | ≤ 2 | 1.25 | no; no gate: a known fake reaches it |" in text
    assert "held to no bounds" not in text
