"""The report in a real browser: headless Chromium, driven by its command line, without a network."""

import contextlib
import html
import json
import re
import shutil
import subprocess

import pytest
from made_up import make_run
from test_reporting import ROOT, SHOWN

from headtohead import reporting
from headtohead.params import read_params

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
PHONE, DESKTOP = (430, 932), (1200, 900)

# A page that holds the report in a frame (a window of Chromium is never narrower than 500 pixels), measures it when
# all of it has loaded, and becomes the measurements.
HARNESS = """<!doctype html><body style="margin: 0">
<iframe src="report.html" style="border: 0; width: %dpx; height: %dpx"></iframe>
<script>
function measure(inside) {
  const page = inside.document, style = inside.getComputedStyle(page.body);
  return {
    inner: inside.innerWidth, scroll: page.documentElement.scrollWidth, background: style.backgroundColor,
    requests: inside.performance.getEntriesByType("resource").map(entry => entry.name),
    opening: ["h1", "h1 + p", ".scroll", "blockquote", ".scroll ~ .scroll"].map(
      found => page.querySelector(found).getBoundingClientRect().bottom),
    figures: [...page.images].map(image => ({alt: image.alt, natural: image.naturalWidth, drawn: image.width,
                                             left: image.getBoundingClientRect().left, ink: ink(image)})),
    tables: [...page.querySelectorAll("table")].map(columns),
    numerals: [...page.querySelectorAll("table")].map(table => inside.getComputedStyle(table).fontVariantNumeric),
  };
}
function ink(image) {  // how many of 100 x 100 points are not white
  const canvas = Object.assign(document.createElement("canvas"), {width: 100, height: 100}).getContext("2d");
  canvas.fillStyle = "white";
  canvas.fillRect(0, 0, 100, 100);
  if (image.naturalWidth) canvas.drawImage(image, 0, 0, 100, 100);
  return canvas.getImageData(0, 0, 100, 100).data.filter((value, i) => i %% 4 == 0 && value < 250).length;
}
function columns(table) {  // the texts and alignments of each column
  return [...table.rows[0].cells].map((_, i) => [...table.rows].map(row => row.cells[i]).map(
    cell => [cell.textContent, getComputedStyle(cell).textAlign]));
}
onload = () => { document.body.textContent = JSON.stringify(measure(frames[0])); };
</script>"""


def chromium(folder, *arguments):
    return subprocess.run([
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files", *arguments],
        capture_output=True, text=True, check=True, timeout=120).stdout


def measure(report, size, *flags):
    """What the harness finds in a window of this size."""
    harness = report.with_name(f"harness-{size[0]}.html")
    harness.write_text(HARNESS % size, encoding="utf-8")
    dom = chromium(report.parent, "--window-size=1400,1000", *flags, "--dump-dom", harness.as_uri())
    return json.loads(html.unescape(re.search(r"<body[^>]*>(.*)</body>", dom, re.DOTALL)[1]))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    make_run(root)
    with contextlib.chdir(root):
        reporting.build(read_params(ROOT / "params.yaml"))
    return root / "report/report.html"


@pytest.fixture(scope="module", params=[PHONE, DESKTOP], ids=["phone", "desktop"])
def seen(request, report):
    return measure(report, request.param)


def test_the_page_never_scrolls_sideways(seen):
    assert seen["inner"] in (PHONE[0], DESKTOP[0])
    assert seen["scroll"] <= seen["inner"]


def test_every_figure_is_drawn_and_described(seen):
    assert len(seen["figures"]) == len(SHOWN)
    for figure in seen["figures"]:
        assert figure["natural"] > 0
        assert 300 <= figure["drawn"] <= seen["inner"] - 2 * figure["left"]
        assert figure["ink"] > 200
        assert len(figure["alt"]) > 30


def test_nothing_is_asked_of_any_network(seen):
    assert not [name for name in seen["requests"] if not name.startswith(("file:", "data:"))]


def test_a_picture_from_elsewhere_would_be_noticed(report):
    leaky = report.with_name("leaky") / "report.html"
    leaky.parent.mkdir(exist_ok=True)
    leaky.write_text(report.read_text(encoding="utf-8").replace("<h1", '<img src="http://h2h.example/x.png"><h1', 1))
    assert "http://h2h.example/x.png" in measure(leaky, DESKTOP)["requests"]


def test_the_first_screen_answers(seen):
    """Title, answer, quality, limits and costs stand on the first screen of either device."""
    height = dict([PHONE, DESKTOP])[seen["inner"]]
    assert all(bottom < height for bottom in seen["opening"])


NUMBER = re.compile(r"-|[\d.,]+(%| ±[\d.]+| \([\d.,]+\sto\s[\d.,]+\))?")


def test_numbers_stand_below_each_other(seen):
    columns = [column for table in seen["tables"] for column in table[1:]]
    numeric = [column for column in columns if all(NUMBER.fullmatch(text) for text, _ in column[1:])]
    assert len(numeric) > 30
    assert {alignment for column in numeric for _, alignment in column} == {"right"}
    assert set(seen["numerals"]) == {"tabular-nums"}


def test_dark_rooms_get_a_dark_page(report):
    light, dark = (measure(report, DESKTOP, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))
    assert light["background"] == "rgb(255, 255, 255)"
    assert all(int(value) < 64 for value in re.findall(r"\d+", dark["background"]))


def test_printed_it_is_a_few_pages_of_a4(report):
    pdf = report.with_name("report.pdf")
    chromium(report.parent, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", report.as_uri())
    content = pdf.read_bytes()
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content)
    assert 5 <= len(boxes) <= 13
    assert all((round(float(w)), round(float(h))) == (595, 842) for w, h in boxes)
