import json
from functools import partial

import pytest
import torch

from benchmarks import quantizer_speed
from benchmarks.quantizer_speed import (
    SMALL,
    Mixture,
    Size,
    calls,
    main,
    own_step,
    peer_step,
    prepare_steps,
    used_share,
)
from benchmarks.timing import added_memory

CPU = torch.device("cpu")
SIZE = Size(2800, 32, 8)
CODEBOOKS = ("ema.vectors", "embedding.weight")
KEYS = {
    "ratio_peer", "ratio_product", "ratio_fresh", "memory_ratio", "seconds", "memory_mb",
    "codes_in_use", "benchmark", "date", "tokens", "num_embeddings", "dim", "rounds", "device",
    "threads", "versions",
}  # fmt: skip


def test_both_quantizers_do_the_same_step() -> None:
    """Latents, gradient and the codebook after it, so that their times compare."""
    found = []
    for make in (own_step, peer_step):
        mixture = Mixture.of(SIZE, CPU)
        quantizer, step = make(mixture)
        step()
        codebook = next(b for n, b in quantizer.state_dict().items() if n.endswith(CODEBOOKS))
        found.append((mixture.latents.grad, codebook))
    (own_gradient, own_codebook), (peer_gradient, peer_codebook) = found
    assert own_gradient is not None
    torch.testing.assert_close(own_gradient, peer_gradient)
    torch.testing.assert_close(own_codebook, peer_codebook, rtol=1e-4, atol=1e-4)
    assert not torch.equal(own_codebook, Mixture.of(SIZE, CPU).vectors)


def test_all_codes_are_in_use_and_none_restarts() -> None:
    assert used_share(SIZE, CPU) == 1
    mixture = Mixture.of(SIZE, CPU)
    _, step = own_step(mixture)
    before = torch.get_rng_state()
    step()
    assert torch.equal(torch.get_rng_state(), before)  # a restart draws tokens


def test_the_product_is_that_of_tokens_and_codebook() -> None:
    mixture = Mixture.of(SIZE, CPU)
    found = calls(mixture)
    assert found.keys() == {"ours", "peer", "product", "fresh"}
    product = found["product"]()
    assert isinstance(product, torch.Tensor)
    assert product.shape == (SIZE.tokens, SIZE.num_embeddings)
    torch.testing.assert_close(product, found["fresh"]())
    first = mixture.latents.detach()[0, :, 0, 0, 0] @ mixture.vectors[3]
    assert float(product[0, 3]) == pytest.approx(float(first), rel=1e-4)


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    """MONAI holds a one-hot row per token; 1400 × 4096 float32 numbers are 23 MB."""
    size = Size(1400, 4096, 8)
    assert added_memory(partial(prepare_steps, "peer", size)) > 2 * 22.9


def test_the_last_line_is_json_with_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def in_place(prepare: partial) -> float:
        prepare()()
        measured.append(prepare.args[0])
        return 2.0

    monkeypatch.setattr(quantizer_speed, "added_memory", in_place)
    arguments = ["--tokens", "1400", "--num-embeddings", "16", "--dim", "8", "--rounds", "2"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() == KEYS
    assert measured == ["ours", "peer"]
    assert Size(*(result[key] for key in ("tokens", "num_embeddings", "dim"))) == SMALL
    assert result["memory_ratio"] == 1
    assert result["codes_in_use"] == 1
    assert all(result[key] > 0 for key in ("ratio_peer", "ratio_product", "ratio_fresh"))
    assert result["seconds"].keys() == {"ours", "peer", "product", "fresh"}


def test_tokens_fill_whole_volumes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--tokens", "1000"])
    assert "multiple of 1400" in capsys.readouterr().err
