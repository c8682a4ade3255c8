"""A JupyterLab with its own configuration, and a browser that may reach nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser import chromium

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The address of a JupyterLab that shows copies of the notebooks."""
    home = tmp_path_factory.mktemp("jupyter")
    work = home / "work"
    work.mkdir()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, work)
    tracker = home / "settings" / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    whole = {"windowingMode": "none", "autoStartDefaultKernel": True}
    (tracker / "tracker.jupyterlab-settings").write_text(json.dumps(whole))
    folders = {
        f"{name}_DIR": str(home / name.lower())
        for name in ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME")
    }
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={work}"),
            f"--LabApp.user_settings_dir={home / 'settings'}",
            "--LabApp.expose_app_in_browser=True",
        ],
        env=os.environ | folders | {"IPYTHONDIR": str(home / "ipython")},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in server.stderr:
        address = re.search(r"(http://127\.0\.0\.1:\d+)/lab\?token=(\w+)", line)
        if address:
            break
    else:
        pytest.fail("JupyterLab did not start")
    with open(home / "log", "w") as log:
        drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=log)
        yield address.groups()
        server.terminate()
        server.wait(30)
        drain.wait(30)


@pytest.fixture(scope="session")
def browser():
    path = chromium.find()
    if path is None:
        pytest.fail("no Chromium found: install it, or run `playwright install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A laptop's screen; asks for anything beyond this machine are refused, and fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    strangers = []

    def check(route):
        if re.match(r"file:|(https?|wss?)://(127\.0\.0\.1|localhost)[:/]", route.request.url):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    page.route("**/*", check)
    yield page
    context.close()
    assert not strangers, f"the page asked for {strangers}"
