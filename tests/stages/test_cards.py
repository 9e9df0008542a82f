"""The model card and the datasheet say what was done, whatever params.yaml says by now."""

from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages.evaluate import evaluate


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
