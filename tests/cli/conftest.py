import os

import pytest


@pytest.fixture(autouse=True)
def _restored_environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
