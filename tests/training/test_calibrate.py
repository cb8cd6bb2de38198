import numpy as np
import pytest

from training.calibrate import temperature, threshold


@pytest.mark.parametrize("wanted", [0.5, 1.0, 1.8])
def test_the_temperature_that_made_the_probabilities_is_found(wanted):
    rng = np.random.default_rng(1)
    true = rng.dirichlet((1.0, 1.0, 1.0), size=20_000)
    right = np.array([rng.choice(3, p=row) for row in true])
    said = true**wanted  # a model whose log probabilities are too large by that factor
    assert temperature(said / said.sum(1, keepdims=True), right) == pytest.approx(wanted, rel=0.05)


def test_a_threshold_lets_through_the_allowed_shares_and_no_more():
    rng = np.random.default_rng(2)
    ordinary, neighbours = rng.beta(2, 5, 20_000), rng.beta(3, 4, 2_000)
    least = threshold(ordinary, neighbours)
    assert (ordinary >= least).mean() <= 0.003
    assert (neighbours >= least).mean() <= 0.05
    assert max((ordinary >= least - 0.02).mean() / 0.003, (neighbours >= least - 0.02).mean() / 0.05) > 1


def test_what_is_more_probably_harmless_is_harmless():
    assert threshold(np.zeros(50), np.full(50, 0.1)) == 0.501


def test_a_model_that_is_always_sure_leaves_a_threshold_that_can_be_reached():
    assert threshold(np.ones(50), np.ones(50)) < 1
