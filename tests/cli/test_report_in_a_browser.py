"""The report page in headless Chromium: no error, all images, no sideways scrolling, tables that sort."""
import json
import os
import re
import shutil
import subprocess
from html import unescape

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

# What a reader would do and see: sort a table falling by its second column, and look at images and widths.
LOOK = """<script>
const cells = () => [...document.querySelectorAll("#table-metrics tbody tr")].map(row => row.cells[1].dataset.value);
const heads = [...document.querySelectorAll("#table-metrics thead button")];
heads[1].click();
const rising = cells();
heads[1].click();
addEventListener("load", () => {
  document.body.dataset.seen = JSON.stringify({
    rising, falling: cells(), state: heads.map(head => head.parentNode.getAttribute("aria-sort")),
    images: [...document.images].map(image => image.complete && image.naturalWidth > 0),
    widths: [...document.images].map(image => image.getBoundingClientRect().right), window: innerWidth,
    page: document.documentElement.scrollWidth,
  });
  parent.postMessage(document.body.dataset.seen, "*");
});
</script></body>"""
# A window is never narrower than about 500 points, a frame may be.
FRAME = """<!DOCTYPE html><title>frame</title><body style="margin:0">
<script>addEventListener("message", event => { document.body.dataset.seen = event.data; });</script>
<iframe src="look.html" width="WIDTH" height="900" style="border:0"></iframe></body>"""


@pytest.fixture
def look(command, matrix, tmp_path):
    """Open the page of a small report in a frame of some width; returns what was seen, and the console."""
    assert command("report", matrix, "--quick", "--steps", 16, "--out", "out", "--quiet").status == 0
    (tmp_path / "look.html").write_text((tmp_path / "out" / "report.html").read_text().replace("</body>", LOOK))

    def call(width):
        (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
        # As root, as in containers, the browser runs only without its sandbox; the page is our own.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        line = [BROWSER, "--headless", "--disable-gpu", *sandbox, f"--user-data-dir={tmp_path / 'profile'}",
                "--enable-logging=stderr", "--window-size=1600,1000", "--virtual-time-budget=4000", "--dump-dom",
                f"file://{tmp_path / 'frame.html'}"]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, timeout=90)
        found = re.search(r'data-seen="([^"]*)"', done.stdout)
        assert found, done.stderr[-2000:]
        return json.loads(unescape(found[1])), [row for row in done.stderr.splitlines() if "CONSOLE" in row]

    return call


@pytest.mark.parametrize("width", [400, 1400])
def test_page_is_whole_at_this_width(look, width):
    seen, console = look(width)
    assert console == []
    assert seen["images"] and all(seen["images"])
    assert seen["window"] == width and seen["page"] <= width and max(seen["widths"]) <= width
    numbers = [float(value) for value in seen["rising"] if value]
    assert len(numbers) > 5 and numbers == sorted(numbers)
    assert [float(value) for value in seen["falling"] if value] == numbers[::-1]
    assert seen["state"][1] == "descending" and set(seen["state"]) == {None, "descending"}
