import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmri.evaluation.gates import Gate, Verdict, check, is_worse, with_intervals

SHARP = Gate("psnr_db", least=22)
CLOSE = Gate("distance", most=0.5)


@pytest.mark.parametrize("bounds", [{}, {"least": 1.0, "most": 2.0}])
def test_a_gate_has_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one of least and most"):
        Gate("psnr_db", **bounds)


@pytest.mark.parametrize(
    ("gate", "value", "passed"),
    [
        (SHARP, 22.0, True),
        (SHARP, 22.1, True),
        (SHARP, 21.9, False),
        (SHARP, float("nan"), False),
        (SHARP, float("inf"), True),
        (CLOSE, 0.5, True),
        (CLOSE, 0.4, True),
        (CLOSE, 0.6, False),
        (CLOSE, float("nan"), False),
        (Gate("kept", least=0), 0.0, True),
        (Gate("copies", most=0), 0.0, True),
        (Gate("copies", most=0), 1.0, False),
    ],
)
def test_the_bound_itself_passes_and_nothing_beyond_it(
    gate: Gate, value: float, passed: bool
) -> None:
    (verdict,) = check([gate], {gate.name: value, "other": 1.0})
    assert verdict.passed is passed
    assert verdict.name == gate.name


def test_verdicts_say_bound_value_and_what_became_of_it() -> None:
    verdicts = check([CLOSE, SHARP], {"psnr_db": 23.125, "distance": 2 / 3})
    assert verdicts == [
        Verdict("distance", "≤ 0.5", 2 / 3, False),
        Verdict("psnr_db", "≥ 22", 23.125, True),
    ]
    assert [str(verdict) for verdict in verdicts] == [
        "distance ≤ 0.5: 0.666667, fails",
        "psnr_db ≥ 22: 23.125, passes",
    ]


def test_what_was_not_measured_fails_and_the_nearest_names_are_told() -> None:
    metrics = {"psnr_db": 30.0, "psnr_db_foreground": 25.0, "ssim": 1.0}
    (mistyped,) = check([Gate("pnsr_db", least=22)], metrics)
    assert (mistyped.value, mistyped.passed) == (None, False)
    assert mistyped.nearest[0] == "psnr_db"
    assert "ssim" not in mistyped.nearest
    assert str(mistyped).startswith("pnsr_db ≥ 22: not measured (is it psnr_db")
    (strange,) = check([Gate("xyz", most=1)], metrics)
    assert str(strange) == "xyz ≤ 1: not measured, fails"


@pytest.mark.parametrize(
    ("challenger", "champion", "worse"),
    [
        ({"psnr_db": 24.0}, {"psnr_db": 24.0}, []),
        ({"psnr_db": 23.9}, {"psnr_db": 24.0}, ["psnr_db"]),
        ({"psnr_db": 23.0}, {"psnr_db": 24.0, "psnr_db_low": 23.0, "psnr_db_high": 25.0}, []),
        (
            {"psnr_db": 22.9},
            {"psnr_db": 24.0, "psnr_db_low": 23.0, "psnr_db_high": 25.0},
            ["psnr_db"],
        ),
        ({"psnr_db": 99.0}, {"psnr_db": 24.0, "psnr_db_low": 23.0, "psnr_db_high": 25.0}, []),
        ({"distance": 0.3}, {"distance": 0.2}, ["distance"]),
        ({"distance": 0.1}, {"distance": 0.2}, []),
        ({"distance": 0.3}, {"distance": 0.2, "distance_low": 0.1, "distance_high": 0.3}, []),
        (
            {"distance": 0.31},
            {"distance": 0.2, "distance_low": 0.1, "distance_high": 0.3},
            ["distance"],
        ),
        # only the champion's interval counts
        ({"psnr_db": 23.0, "psnr_db_high": 25.0}, {"psnr_db": 24.0}, ["psnr_db"]),
        ({"psnr_db": float("nan")}, {"psnr_db": 24.0, "psnr_db_low": 0.0}, ["psnr_db"]),
        ({}, {"psnr_db": 24.0}, ["psnr_db"]),  # no longer measured
        ({"psnr_db": 1.0}, {}, []),  # never measured before
        ({"ssim": 0.1}, {"ssim": 0.9}, []),  # no gate
        ({"distance": 0.3, "psnr_db": 1.0}, {"distance": 0.2, "psnr_db": 2.0},
         ["psnr_db", "distance"]),
    ],
)  # fmt: skip
def test_worse_is_beyond_the_champions_interval_on_the_bad_side(
    challenger: dict[str, float], champion: dict[str, float], worse: list[str]
) -> None:
    assert is_worse([SHARP, CLOSE], challenger, champion) == worse


finite = st.floats(-1e6, 1e6)


@given(finite, finite, st.booleans())
def test_of_two_models_without_intervals_one_is_worse_unless_they_are_equal(
    a: float, b: float, low_is_good: bool
) -> None:
    gate = Gate("m", most=0.0) if low_is_good else Gate("m", least=0.0)
    a_is_worse, b_is_worse = (
        is_worse([gate], {"m": x}, {"m": y}) == ["m"] for x, y in ((a, b), (b, a))
    )
    assert (a_is_worse, b_is_worse) == ((a > b, b > a) if low_is_good else (a < b, b < a))


def test_without_gates_nothing_is_asked_and_nothing_is_worse() -> None:
    assert check([], {"psnr_db": 1.0}) == []
    assert is_worse([], {"psnr_db": 1.0}, {"psnr_db": 2.0}) == []


def test_what_decides_is_the_gated_metrics_and_their_intervals() -> None:
    metrics = {"psnr_db": 24.0, "psnr_db_low": 23.0, "psnr_db_high": 25.0, "psnr_db_foreground": 1}
    assert with_intervals([SHARP, CLOSE], metrics | {"distance": 0.1, "ssim": 0.9}) == {
        "psnr_db": 24.0, "psnr_db_low": 23.0, "psnr_db_high": 25.0, "distance": 0.1,
    }  # fmt: skip
