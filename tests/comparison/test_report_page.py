"""The report as a reader opens it, in a real browser."""

import re

import pytest


@pytest.fixture
def open_report(browser, report):
    """The page at some width and colour scheme; fails the test on a request or a console error."""
    contexts, requests, problems = [], [], []

    def show(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(600_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((report / "report.html").as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    asked = [url for url in requests if not url.startswith("data:")]
    assert asked == [(report / "report.html").as_uri()] * len(contexts)
    assert problems == []


def test_sorting(open_report):
    page = open_report()
    names = "[...document.querySelectorAll('#scores tbody tr')].map(row => row.cells[0].dataset.value)"
    head = page.locator("th[data-score=ods]")
    assert page.evaluate(names) == ["CDWS-MIL", "CAMEL", "Everything is tumour", "Colour only"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert page.evaluate(names) == ["CAMEL", "CDWS-MIL", "Everything is tumour", "Colour only"]
    # By the keyboard too; what has no number stays last.
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.evaluate(names) == ["Everything is tumour", "CDWS-MIL", "CAMEL", "Colour only"]
    # The difference to CAMEL, which has none to itself.
    page.locator("#scores th[data-difference] button").click()
    assert page.evaluate(names)[-1] == "CAMEL"
    assert page.evaluate(names)[2] == "Everything is tumour"
    page.locator("#scores th button").first.click()
    assert page.evaluate(names) == ["CAMEL", "CDWS-MIL", "Colour only", "Everything is tumour"]
    assert head.get_attribute("aria-sort") is None


def test_slider_and_plots(open_report):
    page = open_report()
    layer = page.locator(".layer").first
    opacity = "element => getComputedStyle(element).opacity"
    assert float(layer.evaluate(opacity)) == pytest.approx(0.6)
    page.locator("#opacity").fill("25")
    assert float(layer.evaluate(opacity)) == pytest.approx(0.25)
    assert page.locator("output[for=opacity]").inner_text() == "25 %"
    assert page.locator(".layer").count() == 3 * 4
    assert page.evaluate("[...document.querySelectorAll('.layer')].every(image => image.complete && image.naturalWidth > 0)")

    assert page.locator("[data-plot=iou]").is_visible()
    page.locator("#score").select_option("auc_all")
    assert page.locator("[data-plot=auc_all]").is_visible()
    assert not page.locator("[data-plot=iou]").is_visible()


def test_reliability_curves(open_report, rows):
    page = open_report()
    figures = page.locator("#reliability figure")
    assert figures.count() == 4
    curve = rows[1].reliability
    assert figures.nth(1).locator("figcaption").inner_text() == f"CAMEL: ECE {100 * curve.ece:.1f} %"
    dots = figures.nth(1).locator("circle")
    assert dots.count() == int((curve.counts > 0).sum())
    # The picture is 180 units wide, probability growing to the right and frequency upwards.
    first = int(curve.counts.nonzero()[0])
    assert float(dots.first.get_attribute("cx")) == pytest.approx(30 + 180 * float(curve.confidence[first]), abs=0.1)
    assert float(dots.first.get_attribute("cy")) == pytest.approx(24 + 180 * (1 - float(curve.frequency[first])), abs=0.1)


def test_light_and_dark(open_report):
    colours = "element => [getComputedStyle(element).backgroundColor, getComputedStyle(element).color]"
    for scheme in ("light", "dark"):
        page = open_report(scheme=scheme)
        ground, ink = (_luminance(colour) for colour in page.locator("body").evaluate(colours))
        assert (ground > ink) == (scheme == "light")
        for element in ("body", ".soft", "td small", ".plots svg text.axis", ".paper"):
            shown = page.locator(element).first.evaluate(
                "element => element instanceof SVGElement ? getComputedStyle(element).fill : getComputedStyle(element).color"
            )
            behind = page.locator(".scroll").first.evaluate("element => getComputedStyle(element).backgroundColor")
            lighter, darker = sorted((_luminance(shown), _luminance(behind)), reverse=True)
            # WCAG 2.2, level AA.
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (scheme, element, shown, behind)


def _luminance(colour):
    """Relative luminance of ``rgb(r, g, b)``, as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("width", [375, 1400])
def test_nothing_is_wider_than_the_page(open_report, width):
    page = open_report(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing that is written in a plot stands outside it.
    outside = """[...document.querySelectorAll('svg text')].filter(text => {
        const [plot, box] = [text.ownerSVGElement.getBoundingClientRect(), text.getBoundingClientRect()];
        return plot.width && (box.left < plot.left - 1 || box.right > plot.right + 1 || box.bottom > plot.bottom + 1);
    }).map(text => text.textContent)"""
    assert page.evaluate(outside) == []
    # The table is, and is moved within its frame; its first column stays. An arrow says that there is more.
    table, more = page.locator(".scroll").first, page.locator(".frame .more").first
    is_wider = table.evaluate("element => element.scrollWidth > element.clientWidth + 4")
    assert more.is_visible() == is_wider
    if width < 600:
        assert is_wider
        table.evaluate("element => { element.scrollLeft = 300; }")
        left = page.locator("#scores tbody th").first.bounding_box()["x"]
        assert left == pytest.approx(table.bounding_box()["x"], abs=2)
        table.evaluate("element => { element.scrollLeft = element.scrollWidth; }")
        more.wait_for(state="hidden")
