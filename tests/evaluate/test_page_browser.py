"""The page in a real browser: nothing asked for, nothing complained about, all of it seen, on a phone too."""

import html
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from lit_aigc.evaluate.page.page import POLICY, page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
LONG = "a_name_without_any_place_to_break_it_" * 6
HEADINGS = ["Results", "Pictures", "Classes", "Training", "All numbers", "Protocol"]

# Put into the page at its end: what a visitor gets, as JSON in an element of its own.
PROBE = """
<script>
const complaints = [];
addEventListener("error", event => complaints.push(String(event.message)), true);
addEventListener("securitypolicyviolation", event => complaints.push(event.blockedURI));
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(each => { each.open = true; });
  const shown = selector => [...document.querySelectorAll(selector)].map(each => {
    const box = each.getBoundingClientRect();
    return [box.width, box.height, box.left, box.right];
  });
  const found = {
    complaints,
    loaded: performance.getEntriesByType("resource").map(each => each.name).filter(name => !name.startsWith("data:")),
    width: innerWidth,
    scrolled: document.documentElement.scrollWidth,
    beyond: [...document.querySelectorAll("body *")].filter(each =>
      !each.closest("thead, svg") && each.getBoundingClientRect().right > innerWidth + 0.5).map(each => each.outerHTML),
    images: [...document.images].map(each => [each.complete, each.naturalWidth, each.naturalHeight]),
    headings: [...document.querySelectorAll("h2")].map(each => each.innerText),
    figures: shown(".figure"), charts: shown(".charts svg"), bars: shown(".bars rect"), pictures: shown("img"),
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
  };
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  (window.frameElement ? parent.document : document).body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def text():
    protocol = {"n_real": 4000, "n_fake": 500, "extractor": "inception", "biased": True, "sample_seed": 0, LONG: LONG}
    results = {
        "bundle": f"runs/{LONG}/bundle",
        "fid_inception": 12.345678,
        "fid_floor_inception": 1.5,
        "fid_inception_standard_error": 0.25,
        "fid_inception_low": 11.9,
        "fid_inception_high": 12.8,
        "accuracy_inception": 0.8,
        "class_fid_inception": 20.0,
        **{f"class_fid_inception_{label}": 10.0 + label for label in range(10)},
        f"a_new_{LONG}": 3.0,
        "protocol": {"inception": protocol},
    }
    steps = list(range(0, 10_000, 10))
    curves = {
        "train/g_loss": (steps, [math.sin(step / 500) + 2 for step in steps]),
        "train/g_grad_norm": (steps, [1.0] * len(steps)),
        "fid_inception": ([5000, 10_000], [400.0, 12.3]),
    }
    ramp = np.tile(np.arange(1200, dtype=np.uint16) // 5, (100, 1)).astype(np.uint8)
    pictures = {"samples": Image.fromarray(ramp[:60, :90]), "neighbours": Image.fromarray(ramp)}
    names = ["T-shirt/top", LONG, *"abcdefgh"]
    return page(results, pictures, curves, title=f"digits {LONG}", class_names=names, command=f"evaluate {LONG}")


def visit(folder, text, width, *options):
    """What the probe finds in a frame of this width: a window of a browser can't be as narrow as a phone."""
    policy = str(escape(POLICY))
    assert policy in text
    probed = text.replace(policy, f"{policy}; script-src 'unsafe-inline'").replace("<body>", "<body>" + PROBE)
    frame = f'<!DOCTYPE html><body style="margin:0"><iframe style="width:{width}px;height:900px;border:0"></iframe>'
    escaped = json.dumps(probed).replace("</", "<\\/").replace("<!--", "<\\!--")
    (folder / "frame.html").write_text(
        f"{frame}<script>document.querySelector('iframe').srcdoc = {escaped}</script>", encoding="utf-8"
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1800,1000",
        "--enable-logging=stderr",
    ]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *options, "--dump-dom"]
    done = subprocess.run([*command, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=300)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return {**json.loads(html.unescape(found[1])), "console": console}


@pytest.mark.parametrize("width", [400, 1600])
def test_all_of_the_page_is_seen_and_nothing_is_asked_for(tmp_path, text, width):
    found = visit(tmp_path, text, width)
    assert found["width"] == width
    assert found["complaints"] == found["loaded"] == found["console"] == []
    assert found["scrolled"] <= width
    assert found["beyond"] == []
    assert found["headings"] == HEADINGS
    assert found["images"] == [[True, 90, 60], [True, 1200, 100]]
    for kind, number in (("figures", 3), ("charts", 3), ("bars", 10), ("pictures", 2)):
        assert len(found[kind]) == number
        assert all(w > 20 and h > 8 and left >= 0 for w, h, left, _ in found[kind]), (kind, found[kind])


def test_the_page_is_dark_where_the_reader_wants_it(tmp_path, text):
    light = visit(tmp_path, text, 800, "--blink-settings=preferredColorScheme=1")
    dark = visit(tmp_path, text, 800, "--blink-settings=preferredColorScheme=0")
    assert [brightness(light[key]) > 128 for key in ("background", "ink")] == [True, False]
    assert [brightness(dark[key]) > 128 for key in ("background", "ink")] == [False, True]


def test_the_probe_sees_what_it_is_there_for(tmp_path, text):
    """A page that asks for a picture from elsewhere, is too wide, and throws."""
    wide = '<img src="http://127.0.0.1:9/x.png"><div style="width:3000px">wide</div><script>missing()</script>'
    found = visit(tmp_path, text.replace("<main>", f"<main>{wide}"), 400)
    assert "http://127.0.0.1:9/x.png" in "".join(found["complaints"])
    assert any("missing" in complaint for complaint in found["complaints"])
    assert found["console"] and found["beyond"] and found["scrolled"] > 400


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
