"""The microscope's page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import convlens
from convlens.lens.hooks import record
from tests.microscope.test_server import Server, picture_bytes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize


SEVEN = [(0.25, 0.25), (0.75, 0.25), (0.5, 0.8)]


PHONE: ViewportSize


DESKTOP: ViewportSize


PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 1000}


VERTICAL_EDGES = "conv(6, 5, stride=2, padding=2) relu maxpool(2) flatten linear(classes)"


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    opened = launch()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that knows digits: the preset `fast` on the embedded MNIST."""
    folder = tmp_path_factory.mktemp("digits")
    convlens.train("mnist", preset="fast", out=folder / "runs" / "mnist-1", progress="none")
    return folder


@pytest.fixture(scope="module")
def microscope(digits: Path) -> Iterator[Server]:
    server = Server(digits, "runs/mnist-1", "--port", "0")
    yield server
    assert server.close() == 0


@pytest.fixture
def page(browser: Browser, microscope: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The open page; at the end no console error may have come, and no request may have left the machine."""
    context = browser.new_context(viewport=getattr(request, "param", DESKTOP))
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    refused = "the server responded with a status of 400"  # the browser's own words, where a test sends nonsense
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith((microscope.url, "blob:")) else problems.append(r.url))
    opened.goto(microscope.entry)
    opened.wait_for_selector("body[data-ready]")
    yield opened
    context.close()
    expected = request.node.get_closest_marker("refused") is not None
    assert [text for text in problems if not (expected and refused in text)] == []


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw with the mouse; points in shares of the pad."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def draw_seven(page: Page) -> None:
    page.evaluate("scrollTo(0, 0)")
    draw(page, SEVEN)
    page.wait_for_selector("#answer[data-label='7']")
    # Quiet: the last picture is answered, and its maps are there.
    page.wait_for_function("() => document.querySelector('article[data-address=\"0\"] canvas').height > 20")
    page.wait_for_function("() => document.getElementById('said').textContent.startsWith('Prediction: 7')")
    page.wait_for_load_state("networkidle")


def click_value(page: Page, address: str, x: float, y: float) -> list[int]:
    """Click a map's canvas and return the unit that the panel shows."""
    canvas = page.locator(f"article[data-address='{address}'] canvas")
    canvas.scroll_into_view_if_needed()
    canvas.click(position={"x": x, "y": y})
    page.wait_for_selector(f"#value-body .address:text-is('{address}')")
    return unit(page)


def unit(page: Page) -> list[int]:
    return [int(field.input_value()) for field in page.locator("#value-body .unit input").all()]


def seen_by_the_page(page: Page, digits: Path) -> Any:
    """What torch makes of the very picture that the pad holds, through the Python API."""
    import base64

    encoded = page.evaluate("document.getElementById('pad').toDataURL('image/png').split(',')[1]")
    classifier = convlens.load(digits / "runs" / "mnist-1")
    return record(classifier.network, classifier.frame(base64.b64decode(encoded)))


def test_drawn_digit_is_recognised(page: Page) -> None:
    """A digit drawn with the mouse gets the right label; clearing and another stroke change the answer."""
    draw_seven(page)
    assert page.locator("#answer .best .name").inner_text() == "7"
    page.locator("#clear").click()
    assert "Nothing is drawn" in page.locator("#answer").inner_text(), "a blank pad has no answer"
    draw(page, [(0.5, 0.15), (0.5, 0.85)])
    page.wait_for_selector("#answer[data-label='1']")


def test_opens_with_a_picture_and_keeps_the_drawing(page: Page) -> None:
    """There is something to look at from the start, with its name and true class; the first stroke begins a blank
    sheet. What was drawn is there again after a reload, and a blank sheet is not."""
    page.wait_for_selector("#answer li")
    assert "in truth" in page.locator("#seen-note").inner_text()
    assert page.locator("#answer .name", has_text="✓").count() == 1
    draw_seven(page)
    assert "in truth" not in page.locator("#seen-note").inner_text()
    corner = "document.getElementById('pad').getContext('2d').getImageData(2, 2, 1, 1).data[0]"
    assert page.evaluate(corner) == 255, "nothing of the picture it opened with is left"
    page.reload()
    page.wait_for_selector("#answer[data-label='7']")
    assert "in truth" not in page.locator("#seen-note").inner_text()
    page.locator("#clear").click()
    page.reload()
    page.wait_for_selector("#answer li")
    assert "in truth" in page.locator("#seen-note").inner_text()


def test_a_press_on_the_confusion_matrix_brings_its_pictures(page: Page) -> None:
    """They lie below it: they come into view, and the keyboard is there; a link leads to the maps past all else."""
    page.locator("#tab-model").click()
    page.locator("#confusion td.right button").first.click()
    page.wait_for_function("() => document.getElementById('cell-title').textContent.includes('predicted right')")
    page.wait_for_function(
        "() => { const b = document.getElementById('cell-title').getBoundingClientRect();"
        " return b.top >= -1 && b.bottom <= innerHeight; }"
    )
    assert page.evaluate("document.activeElement.id") == "cell-title"
    page.locator("#tab-look").click()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.locator("#skip-maps").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "layers"


def test_clicked_value_shows_what_torch_gives(page: Page, digits: Path) -> None:
    """A click on a convolution's map shows torch's own value, window, kernel and sum."""
    draw_seven(page)
    channel, row, column = click_value(page, "0", 30, 40)
    recording = seen_by_the_page(page, digits)
    value = float(recording.values["0"][channel, row, column])
    shown = page.locator("#the-value").inner_text().replace("−", "-")
    assert float(shown) == pytest.approx(value, rel=1e-5, abs=1e-5)
    kernel = recording.tensors["0.weight"][channel, 0]
    cells = page.locator(".numbers:has(caption:text-is('kernel')) td").all()
    found = np.array([float(cell.get_attribute("title") or "nan") for cell in cells]).reshape(kernel.shape)
    assert np.array_equal(found.astype(np.float32), kernel)
    cells = page.locator(".numbers:has(caption:text-is('window')) td").all()
    window = np.array([float(cell.get_attribute("title") or "nan") for cell in cells]).reshape(kernel.shape)
    assert np.array_equal(
        window.astype(np.float32), recording.values["input"][0, 2 * row : 2 * row + 5, 2 * column : 2 * column + 5]
    )
    assert float((window * found).sum()) == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_every_layer_opens(page: Page, digits: Path) -> None:
    """Each layer of the network, the input and the softmax show an arithmetic that agrees with the network's own."""
    draw_seven(page)
    recording = seen_by_the_page(page, digits)
    for address in recording.values:
        click_value(page, address, 8, 16 if recording.values[address].ndim == 3 else 8)
        assert "please report" not in page.locator("#value-body").inner_text()
        assert page.locator("#value-body .lines li").count() >= 1
    page.locator("#answer button").first.click()
    page.wait_for_selector("#value-body .address:text-is('softmax')")
    assert page.locator(".terms tbody tr").count() == 10


def test_play_moves_the_window(page: Page) -> None:
    """Play goes from value to value, row by row; pause holds it; the step buttons move by one."""

    def wait_for_column(test: str, column: int) -> None:
        field = "document.querySelector('#value-body [data-part=\"2\"]')"
        page.wait_for_function(f"column => {field} && {field}.value {test} column", arg=str(column))

    draw_seven(page)
    first = click_value(page, "0", 4, 14)
    page.locator("#play").click()
    wait_for_column("!=", first[2])
    page.locator("#play").click()
    page.wait_for_load_state("networkidle")
    held = unit(page)
    page.locator("#play-step").click()
    wait_for_column("!=", held[2])
    assert unit(page) == [held[0], held[1], held[2] + 1]
    page.locator("#play-back").click()
    wait_for_column("==", held[2])
    assert page.locator("#stage").is_visible()


def test_keyboard_reaches_every_value(page: Page) -> None:
    """Arrows move over a layer's maps, Page Down changes the channel, Enter opens; Escape closes; tabs by arrows."""
    draw_seven(page)
    page.locator("article[data-address='0'] canvas").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "PageDown"):
        page.keyboard.press(key)
    page.wait_for_selector("#said:has-text('channel 1, row 1, column 2')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#value.open")
    assert unit(page) == [1, 1, 2]
    page.wait_for_function(
        "() => document.getElementById('said').textContent.startsWith('Layer 0, channel 1, row 1, column 2')"
    )
    page.keyboard.press("ArrowRight")  # looks further without moving what is shown
    page.wait_for_selector("#said:has-text('column 3')")
    chosen = page.evaluate("import('./page/state.js').then(m => m.state.chosen.unit)")
    assert chosen == unit(page) == [1, 1, 2]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")  # on what is shown: to the arithmetic itself
    assert page.evaluate("document.activeElement.closest('#value') !== null")
    page.locator("#play-step").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#value-body [data-part=\"2\"]').value == '3'")
    assert page.evaluate("document.activeElement.id") == "play-step", "what has the focus keeps it"
    page.keyboard.press("Escape")
    page.wait_for_selector("#value:not(.open)")
    assert page.evaluate("document.activeElement.closest('article').dataset.address") == "0"
    page.locator("#tab-look").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#teach").is_visible() and page.locator("#tab-teach").get_attribute("aria-selected") == "true"


def test_misclassified_and_confusion_open_images(page: Page) -> None:
    """A validation image that the model gets wrong shows its wrong answer; a cell of the matrix shows its images."""
    page.wait_for_selector("#misclassified button")
    first = page.locator("#misclassified button").first
    label, answer = first.locator("span").first.inner_text().split(" → ")
    assert first.locator(".file").last.inner_text().isdigit(), "the image's number in the data"
    first.click()
    page.wait_for_selector(f"#answer[data-label='{answer}']")
    page.locator("#method").select_option("occlusion")
    page.wait_for_function(
        "name => document.getElementById('seen-note').textContent.includes(name)", arg=f"for {answer}"
    )
    page.locator("#answer button").nth(int(label)).click()  # what speaks for the class that it is
    page.wait_for_function(
        "name => document.getElementById('seen-note').textContent.includes(name)", arg=f"for {label}"
    )
    page.locator("#method").select_option("")
    page.locator("#tab-model").click()
    page.wait_for_selector("#calibration circle")
    page.locator("#confusion tbody tr").nth(int(label)).locator("td").nth(int(answer)).locator("button").click()
    page.wait_for_function(
        "words => document.getElementById('cell-title').textContent.startsWith(words)",
        arg=f"{label}, predicted as {answer}",
    )
    assert page.locator("#cell button").count() >= 1
    assert "no score is kept: convlens evaluate" in page.locator("#facts").inner_text()


def test_a_validation_image_is_saved_as_it_is(page: Page, tmp_path: Path) -> None:
    """The file has the very pixels that the network sees: chosen again, it gets the same answer to the last digit."""
    page.wait_for_selector("#misclassified button")
    tile = page.locator("#misclassified button").nth(2)
    name = tile.locator(".file").last.inner_text()
    tile.click()
    page.wait_for_function(
        "name => document.getElementById('seen-note').textContent.includes(`${name} in the data`)", arg=name
    )
    before = page.locator("#answer").inner_text().replace(" ✓", "")
    with page.expect_download() as saved:
        page.locator("#save").click()
    saved.value.save_as(tmp_path / "saved.png")
    page.locator("#file").set_input_files(tmp_path / "saved.png")
    page.wait_for_function("!document.getElementById('seen-note').textContent.includes('in truth')")
    page.wait_for_selector("#answer[data-label]")
    assert page.locator("#answer").inner_text() == before


@pytest.mark.refused
def test_chosen_file_and_a_file_that_is_none(page: Page, tmp_path: Path) -> None:
    """A file is answered like a drawing; one that is no picture gets one clear line, and the page lives on."""
    (tmp_path / "notes.png").write_text("these are notes", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#problem:not([hidden])")
    assert "not a picture" in page.locator("#problem").inner_text()
    draw_seven(page)


def test_the_answer_over_both_views_is_shown(browser: Browser, two_views: convlens.Run, tmp_path: Path) -> None:
    """A model with mirrored views: under the bars, which are those of the picture alone, stands predict's answer."""
    (tmp_path / "picture.png").write_bytes(picture_bytes(3))
    server = Server(tmp_path, str(two_views.path), "--port", "0")
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(server.entry)
    page.wait_for_selector("body[data-ready]")
    page.set_input_files("#file", tmp_path / "picture.png")
    answer = convlens.predict(two_views, tmp_path / "picture.png")[0]
    words = f"With its mirror image, as predict answers: {answer.label}, {100 * answer.probability:.1f} %"
    # Before it stands the answer to the picture that the page opened with.
    page.wait_for_function("words => document.getElementById('mirrored').textContent === words", arg=words)
    context.close()
    assert server.close() == 0


def test_error_of_a_sentence_stands_under_its_column(page: Page) -> None:
    """The caret lies under the very character that the message names, also where the text runs over several lines."""
    page.locator("#tab-lab").click()
    for before in ("conv(8, 3) relu ", "conv(8, 3) relu " * 14):
        page.locator("#sentence").fill(f"{before}maxpol(2) flatten linear(classes)")
        page.wait_for_function(
            "column => document.getElementById('sentence-error').textContent.startsWith(column)",
            arg=f"column {len(before) + 1}: ",
        )
        assert "maxpool" in page.locator("#sentence-error").inner_text()
        caret, spot = page.locator("#caret").bounding_box(), page.locator("#mirror span").bounding_box()
        assert caret is not None and spot is not None
        assert abs(caret["x"] - spot["x"]) < 3 and 0 < caret["y"] - spot["y"] < 26
        # The hidden copy that the place is taken from breaks its lines as the field does.
        heights = page.evaluate(
            "[document.getElementById('mirror').scrollWidth, document.getElementById('sentence').scrollWidth]"
        )
        assert heights[0] == heights[1]
    page.locator("#sentence").fill("conv(8, 3) relu maxpool(2) flatten linear(classes)")
    page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length == 5")
    assert "⌊(28 − 3) / 1⌋ + 1 = 26" in page.locator("#table").inner_text()
    assert page.locator("#caret").is_hidden()


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_works_on_a_phone(page: Page) -> None:
    """At 390 px nothing is wider than the screen, in any view; drawing and the panel work, and no card is missing."""
    draw_seven(page)
    click_value(page, "0", 20, 30)
    assert overflow(page) == 0
    page.locator("#value-close").click()
    for view in ("teach", "lab", "model"):
        page.locator(f"#tab-{view}").click()
        page.wait_for_load_state("networkidle")
        assert overflow(page) == 0, view
        cards = f"[...document.querySelectorAll('#{view} .card:not([hidden])')]"
        gone = f"() => {cards}.filter((card) => getComputedStyle(card).display == 'none').length"
        assert page.evaluate(gone) == 0, view
    page.locator("#tab-lab").click()
    assert page.locator("#sentence").is_visible() and page.locator("#train").is_visible()


@pytest.mark.parametrize("page", [DESKTOP, PHONE], indirect=True)
def test_a_press_on_a_mistake_brings_its_answer_into_view(page: Page) -> None:
    """The misclassified stand below the maps; pressed, one is answered where one looks, with the true class named."""
    page.wait_for_selector("#misclassified button")
    page.locator("#misclassified button").first.scroll_into_view_if_needed()
    page.locator("#misclassified button").first.click()
    page.wait_for_selector("#answer:has-text('✓')")
    page.wait_for_function(
        "() => { const box = document.getElementById('answer').getBoundingClientRect();"
        " return box.top >= 0 && box.top < innerHeight }"
    )
    assert "the true class" in page.locator("#answer-note").inner_text()


@pytest.mark.slow
def test_designed_network_trains_and_opens(page: Page, microscope: Server, digits: Path) -> None:
    """A sentence typed in the lab is trained by a child process with its curve, and opened in the microscope."""
    page.locator("#tab-lab").click()
    page.locator("#sentence").fill(VERTICAL_EDGES)
    page.locator("#epochs").fill("0.3")
    page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length == 5")
    page.locator("#train").click()
    page.wait_for_selector("#progress-state[data-state='complete']", timeout=60_000)
    assert page.locator("#curves polyline").count() >= 1
    assert convlens.Run(digits / "runs" / "lab-1").status == "complete"
    # Whether it is better than another one here is said on the spot.
    page.locator("#compare").click()
    page.wait_for_selector("#verdict:has-text('the same 6,018 images')", timeout=30_000)
    assert "mnist-1 is better: lab-1 minus mnist-1 is −" in page.locator("#verdict").inner_text()
    # Another tab, which stays with the model that it looks into, and a value that is played here.
    other = page.context.new_page()
    other.goto(microscope.entry)
    other.wait_for_selector("body[data-ready]")
    draw_seven(other)
    page.locator("#tab-look").click()
    draw_seven(page)
    click_value(page, "0", 20, 30)
    page.locator("#play").click()
    page.locator("#tab-lab").click()
    page.locator("#open").click()
    page.wait_for_function("() => document.getElementById('models').value.includes('lab-1')")
    page.wait_for_selector("#answer[data-label]")  # the drawing is shown to the new model at once
    assert page.locator("#value.open").count() == 0
    click_value(page, "0", 20, 30)
    assert "conv(6, 5, stride=2, padding=2)" in page.locator("#value-body").inner_text()
    draw_seven(other)
    assert "mnist-1" in other.locator("#models").input_value()
    click_value(other, "0", 20, 30)
    assert "conv(6, 5" not in other.locator("#value-body").inner_text()
    # The menu has the runs of the folder, each tab its own; a reload keeps it.
    other.locator("#models").select_option("runs/lab-1/model.safetensors")
    other.wait_for_selector("article[data-address='0']:has-text('conv(6, 5, stride=2, padding=2)')")
    page.locator("#models").select_option("runs/mnist-1/model.safetensors")
    page.wait_for_selector("article[data-address='0']:not(:has-text('conv(6, 5'))")
    # A validation image stays that very image, never framed anew as a drawing, from model to model and after a reload.
    page.locator("#misclassified button").nth(1).click()
    page.wait_for_selector("#seen-note:has-text('held out from training')")
    first = page.locator("#seen-note").inner_text(), page.locator("#answer .share").all_inner_texts()
    for model in ("lab-1", "mnist-1"):
        page.locator("#models").select_option(f"runs/{model}/model.safetensors")
        page.wait_for_function(f"() => document.getElementById('models').value.includes('{model}')")
        page.wait_for_selector("#answer .best")
        page.wait_for_selector("#seen-note:has-text('held out from training')")
    page.wait_for_function(  # the bars of the model before are taken away first
        "shares => [...document.querySelectorAll('#answer .share')].map((one) => one.innerText).join() === shares",
        arg=",".join(first[1]),
    )
    assert page.locator("#seen-note").inner_text() == first[0]
    page.reload()
    page.wait_for_selector("#seen-note:has-text('held out from training')")
    assert page.locator("#seen-note").inner_text() == first[0]
    other.reload()
    other.wait_for_function("() => document.getElementById('models').value.includes('lab-1')")
    other.close()


def test_arrays_reach_the_page_as_they_are(page: Page) -> None:
    """The page's own reader of containers gives the numbers that were packed."""
    draw_seven(page)
    probabilities: NDArray[Any] = np.array(
        page.evaluate("import('./page/state.js').then(m => Array.from(m.state.picture.probabilities.data))")
    )
    assert probabilities.sum() == pytest.approx(1) and len(probabilities) == 10
    assert torch.tensor(probabilities).argmax() == 7


def test_hover_says_the_very_value_beside_the_map(page: Page) -> None:
    """What stands in the tooltip is what a click shows, to the digit; and it does not cover the map."""
    draw_seven(page)
    canvas = page.locator("article[data-address='0'] canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 31.5, box["y"] + 33.5)
    page.wait_for_selector("#lens:not([hidden])")
    place, value = page.locator("#lens p").inner_text().rsplit(": ", 1)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#value.open")
    channel, row, column = unit(page)
    assert place == f"channel {channel}, row {row}, column {column}"
    assert page.locator("#the-value").inner_text() == value
    lens = page.locator("#lens").bounding_box()
    assert lens is not None and lens["x"] > box["x"] + 50, "the map is about 60 px wide"


def test_cells_of_the_last_layer_are_as_large_as_a_finger(page: Page) -> None:
    """Ten cells of 40 px; pointing at one names its class."""
    draw_seven(page)
    last = page.locator("#layers article").last.locator("canvas")
    last.scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.querySelectorAll('#layers canvas')].at(-1).clientWidth >= 400")
    last.hover(position={"x": 7 * 40 + 20, "y": 20})
    page.wait_for_selector("#lens:not([hidden])")
    assert page.locator("#lens p").inner_text().startswith("7, index 7: ")


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_on_a_phone_the_answer_is_pinned_and_the_tapped_map_in_sight(page: Page) -> None:
    """The answer stands above the pad while that is drawn on, maps come before the misclassified, and what was tapped
    is not under the sheet that opens."""
    draw_seven(page)
    page.evaluate("scrollTo(0, 200)")
    answer, pad = (page.locator(f"#{name}").bounding_box() for name in ("answer", "pad"))
    assert answer is not None and pad is not None and 0 <= answer["y"] < pad["y"] + pad["height"]
    order = page.evaluate(
        "() => ['layers', 'wrong'].map((id) => document.getElementById(id).getBoundingClientRect().top)"
    )
    assert order[0] < order[1]
    canvas = page.locator("article[data-address='0'] canvas")
    canvas.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('article[data-address=\"0\"] canvas').height > 20")
    page.evaluate("document.querySelector('article[data-address=\"0\"] canvas').scrollIntoView({ block: 'end' })")
    canvas.click(position={"x": 20, "y": 30})
    page.wait_for_selector("#value.open")
    page.wait_for_function(
        "() => document.querySelector('article[data-address=\"0\"] canvas').getBoundingClientRect().top + 60"
        " < document.getElementById('value').getBoundingClientRect().top"
    )


def test_the_lab_lists_layers_and_sentences(page: Page) -> None:
    """Every layer that there is, each with an example that can be read; a press writes it into the sentence; too many
    poolings show the maps that shrink."""
    from convlens.architecture import parse
    from convlens.architecture.layers import LAYER_NAMES

    page.locator("#tab-lab").click()
    examples = page.locator("#vocabulary button").all_inner_texts()
    assert [text.partition("(")[0] for text in examples] and {t.partition("(")[0] for t in examples} == set(LAYER_NAMES)
    for text in examples:
        parse(text)
    for text in page.locator("#examples button").all_inner_texts():
        page.locator(f"#examples button:text-is('{text}')").click()
        page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length > 0")
        page.wait_for_function("() => !document.getElementById('train').disabled")
    page.locator("#sentence").fill("")
    page.locator("#vocabulary button:text-is('relu')").click()
    page.locator("#vocabulary button:text-is('flatten')").click()
    assert page.locator("#sentence").input_value() == "relu flatten"
    page.locator("#sentence").fill("maxpool(9) maxpool(3) maxpool(2) flatten linear(classes)")
    page.wait_for_selector("#sentence-error:has-text('does not fit the 1×1 map')")
    assert page.locator("#table tbody tr").count() == 2
    page.locator("#sentence").fill("dense(10), relu")
    page.wait_for_selector("#sentence-error:has-text(\"did you mean 'linear'\")")
    assert "leave the comma away" in page.locator("#sentence-error").inner_text()


def test_no_probability_reads_certain(page: Page) -> None:
    """Of what is not certain no bar says 100.0, of what is not impossible none 0.0."""
    draw_seven(page)
    shares = page.locator("#answer .share").all_inner_texts()
    assert "100.0" not in shares and "0.0" not in shares


def test_one_calculation_is_printed_alone(page: Page) -> None:
    """With what a calculator gives for its rounded cells; the maps are not on that paper."""
    draw_seven(page)
    page.locator('[data-address="0"] canvas').first.click(position={"x": 40, "y": 30})
    page.wait_for_selector("#value.open .numbers")
    cells = page.locator("#value .numbers:has(caption:text-is('products')) td").all_inner_texts()
    total = sum(float(cell.replace("−", "-")) for cell in cells)
    said = re.search(r"add up to (−?[0-9]+(?:[.][0-9]+)?)", page.locator("#value").inner_text())
    assert said is not None and float(said[1].replace("−", "-")) == pytest.approx(total, abs=1e-3)
    for row, column in ((0, 0), (2, 2), (5, 9), (9, 12), (14, 13), (20, 10), (25, 25)):  # some cells are tiny: −5e−4
        for field, value in zip(page.locator("#value-body .unit input").all()[-2:], (row, column), strict=True):
            field.fill(str(value))
            field.press("Enter")
        page.wait_for_load_state("networkidle")
        assert "NaN" not in page.locator("#value").inner_text()
    page.evaluate("window.print = () => { document.body.dataset.printed = document.body.className; }")
    page.locator("#value-print").click()
    assert page.evaluate("document.body.dataset.printed") == "one"
    page.emulate_media(media="print")
    assert page.locator("#value .numbers").first.is_visible() and not page.locator("#layers").is_visible()
    assert "Network runs/mnist-1" in page.locator("#paper").inner_text()


def test_printing_draws_every_map(page: Page) -> None:
    """Those too that nobody scrolled to."""
    draw_seven(page)
    page.evaluate("window.print = () => { document.body.dataset.printed = 'yes'; }")
    page.locator("#print").click()
    page.wait_for_selector("body[data-printed]")
    assert page.evaluate("() => [...document.querySelectorAll('#layers canvas')].every((one) => one.height > 0)")
