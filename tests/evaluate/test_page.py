"""The page: well-formed, self-contained, escaped, and with every number of the results in it."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from lit_aigc.errors import InputError
from lit_aigc.evaluate.page.content import run_curves
from lit_aigc.evaluate.page.page import page

HOSTILE = "</style><script>alert('x')</script>\"' onload=x <img src=http://evil.example/x> \ud800\x00"
PROTOCOL = {
    "n_real": 4000,
    "n_fake": 500,
    "extractor": "inception",
    "reference": {"split": "mnist5k/train", "n": 4000},
    "biased": True,
    "bootstrap": {"draws": 100, "level": 0.9},
    "sample_seed": 12345,
}
RESULTS = {
    "bundle": "runs/digits/bundle",
    "fid_inception": 12.345678,
    "fid_floor_inception": 1.5,
    "fid_inception_standard_error": 0.25,
    "fid_inception_low": 11.9,
    "fid_inception_high": 12.8,
    "kid_inception": 0.0123,
    "class_fid_inception": 20.0,
    **{f"class_fid_inception_{label}": 10.0 + 4 * label for label in range(6)},
    "some_new_number": 3.25,
    "protocol": {"inception": PROTOCOL},
}
CURVES = {
    "train/d_loss": ([0, 100, 200], [0.5, math.nan, 0.25]),
    "fid_inception": ([100, 200], [400.0, 12.3]),
    "fid_floor_inception": ([100, 200], [1.5, 1.5]),
}


def png(width=30, height=20, colour=200):
    buffer = io.BytesIO()
    Image.new("L", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


class Tree(HTMLParser):
    """Checks that elements are closed in order, and remembers them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        assert len({key for key, _ in attributes}) == len(attributes)
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "img", "br"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if "style" not in self.open:
            self.texts.append(text)

    def all(self, name, class_=None):
        found = [attributes for element, attributes in self.elements if element == name]
        return [each for each in found if class_ is None or class_ in (each.get("class") or "").split()]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def make(results=RESULTS, pictures=None, curves=None, **more):
    return Tree(page(results, pictures, curves, **{"title": "digits", **more}))


def test_every_part_is_there_once_and_named():
    tree = make(pictures={"samples": png()}, curves=CURVES, command="python -m lit_aigc.evaluate bundle=x")
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert ids == ["headlines", "pictures", "classes", "training", "numbers", "protocol"]
    assert [link["href"] for link in tree.all("a")] == [f"#{key}" for key in ids]
    assert [section["aria-labelledby"] for section in tree.all("section")] == ids
    assert tree.all("html") == [{"lang": "en"}]
    assert "500 samples against 4,000 real images (mnist5k/train), on features of inception." in tree.text
    assert "python -m lit_aigc.evaluate bundle=x" in tree.text


def test_a_number_stands_with_its_interval_and_what_real_images_reach():
    text = make().text
    assert "12.35" in text and "11.90 to 12.80" in text and "1.500" in text  # two digits of the standard error
    assert any("90\u00a0% interval" in each for each in make().texts)  # of the protocol


def test_every_key_is_in_the_table_or_a_column_of_it():
    texts = make().texts
    beside = ("fid_floor_inception", *(f"fid_inception_{part}" for part in ("standard_error", "low", "high")))
    for key in RESULTS.keys() - {"bundle", "protocol"}:
        assert texts.count(key) == (key not in beside), key


def test_a_biased_number_is_flagged_and_only_that():
    tree = make()
    assert len(tree.all("p", "warning")) == 1
    assert len(tree.all("li", "biased")) == 2  # FID and FID by class, not KID
    assert "Biased: FID, FID by class." in tree.text
    honest = make({**RESULTS, "protocol": {"inception": {**PROTOCOL, "biased": False}}})
    assert not honest.all("p", "warning") and not honest.all("span", "flag")


def test_the_verdict_of_an_audit_stands_among_the_headlines_and_above_them_if_it_is_bad():
    audit = {"memorised_share_pixels": 0.05, "memorised_share_pixels_low": 0.03, "memorised_share_pixels_high": 0.08}
    audit |= {"authenticity_pixels": 0.5, "authenticity_real_pixels": 0.52, "protocol": {"memorisation": {"seed": 0}}}
    bad, good = make({**audit, "memorised": True}), make({**audit, "memorised": False})
    assert "Memorized. The audit finds" in bad.text and "Memorized yes Verdict" in bad.text
    assert "The audit finds" not in good.text and "Memorized no Verdict" in good.text
    assert "0.03000 to 0.08000" in good.text and "real images 0.5200" in good.text
    assert "Other" not in good.texts  # all depend on the one protocol


def test_bars_are_as_long_as_their_numbers():
    bars = [float(bar["width"].rstrip("%")) for bar in make().all("rect", "bar")]
    assert bars == pytest.approx([bars[0] * (10 + 4 * label) / 10 for label in range(6)], rel=2e-3)
    (mean,) = {line["x1"] for line in make().all("line", "mean")}
    assert float(mean.rstrip("%")) == pytest.approx(2 * bars[0], rel=2e-3)


def test_classes_are_called_by_their_names_where_these_are_known():
    text = make(class_names=["coat", "shoe"]).text
    assert "coat" in text and "class_fid_inception_1 shoe" in text


def test_the_worst_of_very_many_classes_are_drawn():
    many = {f"class_fid_inception_{label}": float(label) for label in range(1000)}
    tree = make({"class_fid_inception": 499.5, **many, "protocol": {}})
    assert len(tree.all("rect", "bar")) == 40
    assert "the worst 40 of 1,000 classes" in tree.text


def test_nothing_of_a_hostile_text_becomes_markup():
    results = {
        **RESULTS,
        HOSTILE: 1.0,
        "bundle": HOSTILE,
        "other": [HOSTILE],
        "comparison": {HOSTILE: {"difference": 1.0, "beyond_noise": True}},
        "protocol": {"inception": {**PROTOCOL, HOSTILE: {HOSTILE: HOSTILE}, "reference": {"split": HOSTILE}}},
    }
    text = page(
        results,
        {HOSTILE: png()},
        {f"train/{HOSTILE}": ([1, 2], [1.0, 2.0])},
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        class_names=[HOSTILE],
        command=HOSTILE,
    )
    text.encode()
    tree = Tree(text)
    names = {name for name, _ in tree.elements}
    assert not names & {"script", "iframe", "object", "link", "base"}
    assert [image["src"][:22] for image in tree.all("img")] == ["data:image/png;base64,"]
    assert not {key for _, attributes in tree.elements for key in attributes if key.startswith("on")}
    assert text.count("</style>") == 1


def test_nothing_is_loaded_from_elsewhere():
    text = page(RESULTS, {"samples": png()}, CURVES, title="digits")
    tree = Tree(text)
    assert {"http-equiv": "Content-Security-Policy", "content": tree.all("meta")[1]["content"]} == tree.all("meta")[1]
    assert "default-src 'none'" in tree.all("meta")[1]["content"]
    assert not re.search(r"url\(|@import|https?://", text)


def test_pictures_are_whole_and_small_ones_enlarged():
    pictures = {"samples": png(30, 20), "of my own": Image.new("RGB", (800, 10))}
    small, large = make(pictures=pictures).all("img")
    assert small["alt"] == "Samples, 30 by 20 pixels" and large["alt"] == "of my own, 800 by 10 pixels"
    assert (small["class"], small["width"], small["height"]) == ("pixels", "630", "420")
    assert ("class" in large, large["width"], large["height"]) == (False, "800", "10")
    assert base64.b64decode(small["src"].partition(",")[2]) == pictures["samples"]  # the same bytes


def test_large_pictures_leave_the_page_below_3_megabytes():
    noise = Image.effect_noise((1800, 1200), 90)
    text = page(RESULTS, {"samples": noise, "memorisation": noise}, title="digits")
    assert len(text.encode()) < 3e6
    (image, _) = Tree(text).all("img")
    assert int(image["width"]) / int(image["height"]) == pytest.approx(1.5)


def test_a_picture_that_is_none_is_refused():
    with pytest.raises(InputError, match="picture samples can't be read"):
        page(RESULTS, {"samples": b"no picture"}, title="digits")


def test_curves_have_axes_a_level_of_real_images_and_words():
    tree = make(curves=CURVES)
    first, second = (svg["aria-label"] for svg in tree.all("svg") if svg.get("role") == "img")
    assert first == "Curves over samples seen: d_loss 0.5000 at 0, 0.2500 at 200"
    assert "logarithmic" in second and "fid_inception 400.0 at 100, 12.30 at 200" in second
    assert "fid_floor_inception 1.500" in second
    paths = [path["d"] for path in tree.all("path", "curve")]
    assert paths[0].count("M") == 2  # broken at the value that isn't a number
    assert len(tree.all("text")) > 12


def test_a_difference_says_whether_it_is_larger_than_the_noise():
    difference = {"difference": -1.25, "standard_error": 0.3, "low": -1.84, "high": -0.66}
    results = {
        **RESULTS,
        "comparison": {
            "fid_inception": {**difference, "beyond_noise": True},
            "kid_inception": {"value": 0.1, "beyond_noise": False},
        },
    }
    text = make(results).text
    assert "\u22121.25 \u22121.84 to \u22120.66 larger than the noise" in text
    assert "within the noise" in text


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"protocol": None},
        {"protocol": {"perplexity": 3}, "perplexity": 21.5},
        {"fid_inception": math.nan, "kid_inception": math.inf, "is_inception": 0.0, "protocol": {"inception": {}}},
        {
            "fid_floor_inception": 1.0,
            "accuracy_real_inception": True,
            "recall_x": None,
            "list": [1, 2, 2],
            "empty": {},
        },
        {"class_fid_x": math.nan, "class_fid_x_0": math.nan, "class_fid_x_1": -1.0},
    ],
)
def test_results_of_any_kind_make_a_page(results):
    make(results, curves={"empty": ([], [])})


def test_a_run_folder_gives_its_curves(tmp_path):
    (tmp_path / "metrics.csv").write_text("samples_seen,train/g_loss\n100,1.5\n200,0.5\n")
    assert run_curves(tmp_path / "bundle") == {"train/g_loss": ([100, 200], [1.5, 0.5])}
    assert run_curves(tmp_path / "elsewhere" / "bundle") == {}
