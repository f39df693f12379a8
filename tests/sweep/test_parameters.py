"""Parameters of sweep files: what is drawn, what it means, and what is refused."""

from __future__ import annotations

import math
import statistics

import optuna
import pytest

from lit_aigc.sweep.parameters import read_parameters

optuna.logging.set_verbosity(optuna.logging.WARNING)


def one(node):
    searched, constants, problems = read_parameters({"x": node, "other": {"values": [0, 1]}})
    assert (constants, problems) == ({}, [])
    return searched[0]


def draws(node, count=400):
    parameter = one(node)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [parameter.value(study.ask({"x": parameter.distribution}).params["x"]) for _ in range(count)]


def refusal(node):
    searched, _, problems = read_parameters({"x": node})
    assert searched == []
    (problem,) = problems[:1]
    return problem


def test_values_of_any_kind_are_drawn_alike():
    choices = [None, "a, b", [1, 2], {"a": 1}, True, 1, 1.0]
    assert one({"values": choices}).grid == range(7)
    drawn = draws({"values": choices})
    counts = [sum(value is choice for value in drawn) for choice in choices]
    assert sum(counts) == 400
    assert min(counts) > 30


def test_whole_numbers():
    assert set(draws({"min": 2, "max": 5})) == {2, 3, 4, 5}
    assert list(one({"min": 2, "max": 5}).grid) == [2, 3, 4, 5]
    assert all(isinstance(value, int) for value in draws({"distribution": "int_uniform", "min": 2, "max": 5}, 20))


def test_a_uniform_number():
    drawn = draws({"min": -1, "max": 3.0})
    assert one({"min": -1, "max": 3.0}).grid is None
    assert -1 <= min(drawn) < -0.9 and 2.9 < max(drawn) <= 3
    assert statistics.fmean(drawn) == pytest.approx(1, abs=0.2)


def test_a_logarithmic_number_is_uniform_in_its_exponent():
    drawn = [math.log10(value) for value in draws({"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1})]
    assert statistics.fmean(drawn) == pytest.approx(-3, abs=0.2)
    assert statistics.pstdev(drawn) == pytest.approx(4 / math.sqrt(12), abs=0.1)
    assert one({"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1}).logarithmic


def test_multiples_of_q():
    parameter = one({"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1})
    assert [parameter.value(k) for k in parameter.grid] == [0.1, 0.2, 0.3, 0.4, 0.5]
    drawn = draws({"distribution": "q_log_uniform_values", "min": 8, "max": 256, "q": 8})
    assert all(isinstance(value, int) and value % 8 == 0 and 8 <= value <= 256 for value in drawn)
    assert 25 < statistics.median(drawn) < 80  # the middle of the exponents is 45


def test_a_normal_number():
    drawn = draws({"distribution": "normal", "mu": 3, "sigma": 0.5}, 1000)
    assert statistics.fmean(drawn) == pytest.approx(3, abs=0.06)
    assert statistics.stdev(drawn) == pytest.approx(0.5, abs=0.05)


def test_numbers_that_yaml_reads_as_text():
    assert 1e-5 <= draws({"distribution": "log_uniform_values", "min": "1e-5", "max": "1e-4"}, 1)[0] <= 1e-4


def test_one_value_is_not_searched():
    searched, constants, problems = read_parameters({"a": {"value": None}, "b": {"values": [1]}})
    assert (constants, [parameter.name for parameter in searched], problems) == ({"a": None}, ["b"], [])


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (3, "expected value, values, or min and max"),
        ({}, "no distribution"),
        ({"valus": [1]}, "no distribution"),
        ({"min": 1}, "no distribution"),
        ({"values": [1], "probabilities": [1.0]}, "categorical has no probabilities"),
        ({"values": []}, "expected a list"),
        ({"values": "abc"}, "expected a list"),
        ({"distribution": "beta", "min": 0, "max": 1}, "'beta' is not supported"),
        ({"distribution": "uniform", "min": 0}, "max is missing"),
        ({"distribution": "uniform", "min": 2, "max": 1}, "min 2 is more than max 1"),
        ({"distribution": "uniform", "min": "low", "max": 1}, "min is 'low', expected a number"),
        ({"distribution": "uniform", "min": True, "max": 1}, "min is True, expected a number"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "expected more than 0"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 1}, "expected whole numbers"),
        ({"distribution": "q_uniform", "min": 1, "max": 3, "q": 0}, "q is 0"),
        ({"distribution": "q_uniform", "min": 1, "max": 3, "q": 5}, "no multiple of q 5"),
        ({"distribution": "normal", "sigma": 0}, "sigma is 0"),
        ({"parameters": {"a": {"value": 1}}}, "write x.KEY as one key"),
    ],
)
def test_what_is_refused(node, expected):
    problem = refusal(node)
    assert problem.startswith("parameters.x") and expected in problem


def test_all_problems_are_told_together():
    _, _, problems = read_parameters({"a": {"min": 1}, "b": {"values": []}, "c": {"values": [1]}})
    assert len(problems) == 2
    assert read_parameters(None)[2] and read_parameters({"a": {"value": 1}})[2]
