import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from benchmarks import passes, sampling
from benchmarks.passes import (
    Work,
    beside_cached,
    build_prior,
    compare,
    forward,
    missed_positions,
    multiply_adds,
    num_parameters,
    one_thread,
    random_codes,
    sample,
    scatter,
    time_in_turns,
    whole_grid,
)
from benchmarks.transformer import (
    TOLERANCE,
    build_transformer,
    integrate,
    sample_codes,
    steps,
)
from vqmri.cli import PRESETS
from vqmri.params import Params
from vqmri.prior.sampler import Task, one_by_one

WORK = Work.of(Params.load(PRESETS / f"{sampling.PRESET}.yaml"))
TINY = replace(WORK, grid=(2, 4, 2), check_grid=(2, 3, 2))
KEYS = {
    "forwards_b1", "forwards_b4", "forwards_b16", "forwards_large", "forward_floor",
    "ratio_naive_b4", "ratio_peer_b4", "identical", "memory_mb", "naive_measured",
    "peer_measured", "growth",
}  # fmt: skip


def test_the_presets_grid_is_the_one_of_its_codes() -> None:
    assert WORK.grid == (10, 14, 10)
    assert WORK.times(2) == (20, 28, 20)
    assert WORK.num_embeddings == 300


def test_missed_positions_are_counted_over_all_positions() -> None:
    shallow = WORK.settings.model_copy(update={"num_layers": 1, "kernel": 2, "radius": 1})
    assert missed_positions(WORK.settings, (3, 4, 3)) == 0
    assert missed_positions(shallow, (2, 2, 2)) == 0
    # In one dimension one layer of kernel 2 sees 2 back: position 3 misses 1 and position 4 two.
    assert missed_positions(shallow, (1, 1, 5)) == 3
    assert missed_positions(shallow.model_copy(update={"num_attention": 1}), (1, 1, 5)) == 0


def test_one_thread_is_one_thread_and_ends() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        sample(build_prior(TINY, TINY.grid), 2)
        assert sampling.machine()["threads"] == 1
    assert torch.get_num_threads() == before


def test_multiply_adds_of_a_tiny_net() -> None:
    settings = WORK.settings.model_copy(
        update={"channels": 2, "num_layers": 1, "kernel": 2, "radius": 1}
    )
    work = Work(settings, (2, 3, 4), num_embeddings=5)
    streams = (2 * 3 * 3 + 2 * 3 + 2) * 2 * 4  # windows of 18, 6 and 2, from 2 channels to 4
    links, conditions = 3 * 4 * 4, 3 * 2 * 4
    read_out, head = 2 * 2 * 2, 2 * 4 + 4 * 5
    each = streams + links + conditions + read_out + head
    codes = random_codes(work, work.grid, 3)
    assert multiply_adds(build_prior(work, work.grid), codes) == 3 * 2 * 3 * 4 * each


@pytest.mark.parametrize("grid", [(2, 3, 2), (3, 4)])
def test_the_naive_way_draws_the_same_codes(grid: tuple[int, ...]) -> None:
    prior = scatter(WORK, build_prior(WORK, grid, torch.float64))
    codes = sample(prior, 3, whole_grid)
    assert torch.equal(codes, sample(prior, 3, one_by_one))
    assert len(codes.unique()) > 3


def test_with_scattered_weights_far_codes_matter() -> None:
    prior = scatter(WORK, build_prior(WORK, (4, 5, 4), torch.float64))
    codes = random_codes(WORK, (4, 5, 4), 1)
    other = codes.clone()
    other[0, 0, 0, 0] = (codes[0, 0, 0, 0] + 1) % WORK.num_embeddings
    difference = (forward(prior, codes) - forward(prior, other))[0, :, -1, -1, -1]
    assert difference.abs().max() > 0.1


def test_a_sampler_that_differs_is_not_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(TINY, TINY.check_grid, 2).identical

    def other(task: Task) -> torch.Tensor:
        return (one_by_one(task) + 1) % WORK.num_embeddings

    monkeypatch.setattr(passes, "one_by_one", other)
    found = compare(TINY, TINY.check_grid, 2)
    assert not found.codes
    assert not found.identical


def test_logits_that_say_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "LOGIT_DEVIATION", 0.5)
    with pytest.raises(RuntimeError, match=r"deviate by 0\.\d+ only"):
        compare(TINY, TINY.check_grid, 2)


def test_turns_have_a_round_that_does_not_count() -> None:
    called: list[str] = []
    times = time_in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert called == ["a", "b"] * 3
    assert [array.shape for array in times.values()] == [(2, 1), (2, 1)]


def test_cached_draws_are_spread_over_a_long_run_and_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, model = [0.0], torch.nn.Identity()
    monkeypatch.setattr(passes, "DRAWS", 3)

    def take(seconds: float) -> None:
        clock[0] += seconds

    def duration(call: Callable[[], object]) -> float:
        start = clock[0]
        call()
        return clock[0] - start

    def run() -> None:
        for _ in range(7):
            model(0)
            take(4.0)

    monkeypatch.setattr(passes, "duration", duration)
    assert beside_cached(lambda: take(0.5), model, 7, run) == (28.0, 56.0)
    assert clock == [28.0 + 4 * 0.5]
    model(0)
    assert clock == [30.0]  # the hook is gone


def test_integration_is_exact_on_straight_lines() -> None:
    assert integrate({1: 2.0, 3: 6.0, 6: 3.0}, 6) == pytest.approx(2 + 4 + 6 + 5 + 4 + 3)
    assert integrate({1: 2.0, 3: 6.0, 6: 3.0}, 4) == pytest.approx(2 + 4 + 6 + 5)


@pytest.mark.parametrize("flash", [False, True])
def test_the_peer_is_as_large_as_the_prior(flash: bool) -> None:
    parameters = num_parameters(build_prior(WORK, WORK.grid))
    model = build_transformer(256, math.prod(WORK.grid), parameters, flash=flash)
    assert abs(num_parameters(model) / parameters - 1) <= TOLERANCE


def test_a_peer_that_cannot_be_as_large_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not near 1000"):
        build_transformer(256, 16, 1000)


def test_the_peer_draws_codes_and_its_steps_reach_to_the_last() -> None:
    model = build_transformer(256, 16, 400_000)
    codes = sample_codes(model, TINY.grid, 3)
    assert codes.shape == (3, *TINY.grid)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 256
    lengths: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["x"].shape[1]), with_kwargs=True
    )
    sample_codes(model, TINY.grid, 3)
    assert lengths == [*range(1, 17)]
    lengths.clear()
    for length, step in steps(model, 3, 2).items():
        step()
        assert lengths[-1] == length
    assert lengths == [1, 2, 4, 7, 10, 13, 16]


@pytest.mark.parametrize("full", [False, True])
def test_the_last_line_is_json_with_everything(
    full: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MATRIX", 128)
    if not full:  # once is enough: it starts a process
        monkeypatch.setattr(sampling, "sampling_memory", lambda work, grid: 1.0)
    assert sampling.main(["--rounds", "2", *["--full"] * full], TINY) == 0
    lines = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    assert found.keys() >= KEYS
    assert found["identical"] is True
    assert found["naive_measured"] is found["peer_measured"] is full
    assert found["agreement"]["grid"] == list(TINY.grid if full else TINY.check_grid)
    assert [row[0] for row in found["growth"]] == [16, 128, 1024]
    figures = [value for key, value in found.items() if key.startswith(("forward", "ratio"))]
    assert all(value > 0 for value in [*figures, found["memory_mb"]])
    assert found["missed_positions"] == 0
    assert any("positions that some position misses: 0" in line for line in lines)
    assert np.isclose(found["growth"][0][1], found["rows"][0]["cached_s"])
    if full:
        assert found["naive"]["codes_equal"] == 1


def test_a_net_that_misses_positions_is_refused() -> None:
    shallow = WORK.settings.model_copy(update={"num_layers": 2, "radius": 1})
    with pytest.raises(RuntimeError, match="10×14×10 positions miss"):
        sampling.run(replace(WORK, settings=shallow), full=False, rounds=1)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone")
def test_memory_is_that_of_the_draw() -> None:
    assert 0 <= passes._memory(TINY, TINY.grid) < 50
