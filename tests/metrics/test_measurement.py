"""Keys of numbers: written and read back."""

from __future__ import annotations

import pytest

from lit_aigc.metrics.measurement import Measurement, by_key, is_real, panels, read, read_key


@pytest.mark.parametrize(
    ("key", "metric", "extractor"),
    [
        ("fid_mnist_classifier", "fid", "mnist_classifier"),
        ("class_fid_inception", "class_fid", "inception"),
        ("nll_bits_per_dim", "nll_bits_per_dim", ""),
        ("memorised_share_pixels", "memorised_share", "pixels"),
        ("elbo", "elbo", ""),
        ("fid_floor_inception", "fid_floor_inception", ""),
        ("val_loss", "val_loss", ""),
        ("fidelity", "fidelity", ""),
    ],
)
def test_a_key_is_taken_apart_and_put_together(key, metric, extractor):
    found = read_key(key)
    assert (found.metric, found.extractor) == (metric, extractor)
    assert found.key() == key


MEASUREMENTS = [
    Measurement("fid", "inception", 12.5, standard_error=0.5, low=11.0, high=14.0, real=1.5, protocol="inception"),
    Measurement("is", "inception", 8.0, real=9.5, protocol="inception"),
    Measurement("authenticity", "pixels", 0.5, real=0.52),
    Measurement("class_fid", "inception", 20.0, protocol="inception"),
    Measurement("class_fid", "inception", 15.0, part="0", protocol="inception", label="coat"),
    Measurement("class_fid", "inception", 25.0, part="1", protocol="inception", label="1"),
]


def test_numbers_are_read_as_they_were_written():
    values = by_key(MEASUREMENTS)
    assert list(values) == [
        *("fid_inception", "is_inception", "authenticity_pixels"),
        *("class_fid_inception", "class_fid_inception_0", "class_fid_inception_1"),
        *("fid_inception_standard_error", "fid_inception_low", "fid_inception_high"),
        *("fid_floor_inception", "is_real_inception", "authenticity_real_pixels"),
    ]
    assert read(values, {"inception": {"biased": False}}, ["coat"]) == MEASUREMENTS


def test_too_few_images_bias_only_what_minds():
    biased = {each.key() for each in read(by_key(MEASUREMENTS), {"inception": {"biased": True}}) if each.biased}
    assert biased == {"fid_inception", *(f"class_fid_inception{end}" for end in ("", "_0", "_1"))}


def test_what_real_images_reach_is_found_in_older_places_too():
    values = {"nearest_distance": 20.0, "nearest_distance_real": 25.0, "distinct_1": 0.5, "distinct_1_real": 0.6}
    values |= {"classification_accuracy_score": 0.8, "classification_accuracy_real": 0.9}
    assert {each.key(): each.real for each in read(values)} == {
        "nearest_distance": 25.0,
        "distinct_1": 0.6,
        "classification_accuracy_score": 0.9,
    }
    assert is_real("fid_floor_inception") and is_real("is_real_x") and not is_real("floor_plan")


def test_an_unknown_key_is_kept():
    (found,) = read({"some_new_number": None})
    assert (found.key(), found.figure, found.value) == ("some_new_number", None, None)


def test_figures_of_one_kind_share_a_panel():
    curve = ([1], [1.0])
    names = ("class_fid_a", "fid_a", "fid_floor_a", "val_loss", "bits_per_byte", "train/g_loss")
    assert {title: list(group) for title, group in panels(dict.fromkeys(names, curve)).items()} == {
        "training losses": ["g_loss"],
        "class_fid": ["class_fid_a"],
        "fid": ["fid_a", "fid_floor_a"],
        "val": ["val_loss"],
        "bits_per_byte": ["bits_per_byte"],
    }
