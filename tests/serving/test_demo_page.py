"""The page itself in a headless browser: two people at once, long and hostile titles, and no
request to any other host.

    python -m pytest tests/serving/test_demo_page.py -m slow  # needs gradio, selenium, chromium
"""

import dataclasses
import json
import shutil
import socket

import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.serving.demo import Demo, Listed, Listing
from ilm_jax.serving.demo_html import lists
from tests.decoding import small

LONG = "A very long title, " + "with many words that go on and on " * 12 + "x" * 300
HOSTILE = "<img src=x onerror=\"document.title='caught'\"> ${1+1} {{value}} & <b>bold</b>"
WAIT = 60


def missing():
    for module in ("gradio", "selenium"):
        try:
            __import__(module)
        except ImportError:
            return f"{module} is not installed"
    return "" if shutil.which("chromium") else "chromium is not installed"


def world():
    """(a demo whose catalogue has a long and a hostile title, its catalogue)."""
    plain = small.answerer()
    catalogue = small.splits().catalogue
    titles = [*catalogue.titles]
    titles[2], titles[3] = LONG, HOSTILE
    splits = make_splits(dataclasses.replace(catalogue, titles=titles))
    renderer = PromptRenderer(splits, small.SETTINGS)
    answerer = dataclasses.replace(plain, renderer=renderer)
    return Demo(answerer, splits, count=3, config=DecodingConfig(max_new_tokens=4))


@pytest.fixture(scope="module")
def reached():
    """Hosts that this process connected to while the page stood."""
    return set()


@pytest.fixture(scope="module")
def page(reached):
    if why := missing():
        pytest.skip(f"the page needs a browser: {why}")
    from ilm_jax.serving import demo_page

    plain = socket.socket.connect

    def connect(self, address):
        if isinstance(address, tuple):
            reached.add(address[0])
        return plain(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        demo = world()
        blocks = demo_page.build(demo, "tests")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        yield demo, demo_page.launch(blocks, "127.0.0.1", port)
        blocks.close()


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    quiet = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync"
    quiet += " disable-background-networking disable-component-update window-size=1200,900"
    for word in quiet.split():
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={tmp_path}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


class Person:
    """A tab of the browser, as a person uses it."""

    def __init__(self, browser, address):
        browser.switch_to.new_window("tab")
        self.browser, self.tab = browser, browser.current_window_handle
        browser.get(address)
        self.until(lambda: self.all("#find textarea, #find input"))

    def here(self):
        if self.browser.current_window_handle != self.tab:
            self.browser.switch_to.window(self.tab)

    def until(self, test):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        self.here()
        wait = WebDriverWait(
            self.browser, WAIT, ignored_exceptions=[StaleElementReferenceException]
        )
        return wait.until(lambda _: test())

    def all(self, selector):
        self.here()
        return self.browser.find_elements("css selector", selector)

    def texts(self, selector):
        return [found.text for found in self.all(selector)]

    def type(self, where, words):
        (box,) = self.all(f"#{where} textarea, #{where} input")
        box.clear()
        box.send_keys(words)

    def add(self, words, title):
        """Searches by typing, and clicks the hit."""
        self.type("find", words)
        self.until(lambda: title in self.texts(".adds label"))
        next(hit for hit in self.all(".adds label") if hit.text == title).click()
        self.until(lambda: title in self.texts(".drops label"))

    def press(self, button):
        self.until(lambda: self.all(f"#{button}"))[0].click()

    def titles(self, before=()):
        """Those of the list, once it is another than `before`."""

        def new():
            found = self.texts("#list .card .title")
            return found if found and found != list(before) else None

        return self.until(new)


def requested(browser):
    """Hosts that the browser asked for anything."""
    found = set()
    for row in browser.get_log("performance"):
        message = json.loads(row["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if url.startswith(("http", "ws")):
                found.add(url.split("/")[2].split(":")[0])
    return found


@pytest.mark.slow
def test_two_people_search_choose_and_criticise_each_for_oneself(page, browser, reached):
    demo, address = page
    titles = demo.catalogue.titles
    one, two = Person(browser, address), Person(browser, address)
    one.add(titles[5].upper()[:-1], titles[5])
    two.add(titles[7], titles[7])
    one.press("ask")
    two.press("ask")
    first, second = one.titles(), two.titles()
    for person, name, found in ((one, "i5", first), (two, "i7", second)):
        alone = demo.visitor()
        alone.add(name)
        assert found == [item.title for item in alone.recommend().items]
        assert len(person.texts("#list .card .why")) == 3

    one.type("wish", "something darker\n")
    moved = one.titles(first)
    assert not set(moved) & set(first)
    assert all("was" in move or "from" in move for move in one.texts("#list .card .move"))
    assert "something darker" in one.texts("#list .wish")[0]
    assert two.titles() == second and two.texts(".drops label") == [titles[7]]

    next(hit for hit in two.all(".drops label")).click()
    two.until(lambda: not [t for t in two.texts(".drops label") if t])
    one.press("anew")
    one.until(lambda: not one.all("#list .card"))
    assert "ask for a list" in one.texts("#list")[0]
    assert requested(browser) == {"127.0.0.1"} and reached <= {"127.0.0.1", "localhost", "::1"}


@pytest.mark.slow
def test_only_this_machine_s_names_are_answered_and_other_hosts_forbidden_to_the_browser(page):
    import urllib.error
    import urllib.request

    address = page[1]
    with urllib.request.urlopen(address) as answer:
        policy, served = answer.headers["content-security-policy"], answer.read().decode()
    assert "default-src 'self'" in policy and "connect-src 'self'" in policy
    assert "http" not in policy and "fonts.googleapis" not in served
    elsewhere = urllib.request.Request(address, headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(elsewhere)


@pytest.mark.slow
def test_an_empty_history_has_a_list_and_wrong_words_an_answer(page, browser):
    person = Person(browser, page[1])
    person.type("find", "no such title")
    person.press("ask")
    first = person.titles()
    assert len(first) == 3 and not [t for t in person.texts(".adds label") if t]
    person.type("wish", "more of all of it " * 25 + "\n")
    person.until(lambda: any("positions" in text for text in person.texts(".toast-wrap")))
    assert person.titles() == first


@pytest.mark.slow
def test_long_and_hostile_titles_are_words_and_fit_a_phone(page, browser):
    person = Person(browser, page[1])
    browser.set_window_size(500, 900)  # as narrow as the browser goes
    person.add("a very long", LONG.strip())
    person.add("onerror", HOSTILE)
    person.press("ask")
    person.titles()
    script = "return [document.documentElement.scrollWidth, window.innerWidth, document.title]"
    wide, window, title = browser.execute_script(script)
    assert wide <= window and title.endswith("ilm demo")


@pytest.mark.slow
def test_an_unread_item_is_described_beside_its_text(page, browser):
    demo, address = page
    person = Person(browser, address)
    person.until(lambda: person.all("button[role=tab]"))[1].click()
    row = next(row for row in demo.unread if demo.catalogue.titles[row] not in (LONG, HOSTILE))
    title = demo.catalogue.titles[row]
    person.until(lambda: title in person.texts(".tells label"))
    next(hit for hit in person.all(".tells label") if hit.text == title).click()
    person.until(lambda: person.texts("#description .reference"))
    (reference,) = person.texts("#description .reference")
    assert reference.split() == demo.catalogue.texts[row].split()
    assert person.texts("#description .text")[0]
    assert "from its vector alone" in person.texts("#description h3")[0]


def test_lists_are_html_whose_words_are_no_markup():
    item = Listed("i<1>", HOSTILE, -1.5, "why <i>not</i>", 7)
    first = Listing((item,))
    shown = lists([first, Listing((item,), "{{x}} & <b>", 9)])
    assert "▲ from 7" in shown and "▲" not in lists([first])
    for sign in ("<img", "<b>", "<i>", "{{", "${"):
        assert sign not in shown
    below = dataclasses.replace(item, was=None)
    assert "from below 9" in lists([Listing((below,), "x", 9)])
