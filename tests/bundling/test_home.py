"""Where an installed bundle keeps its files: in the folder that it was unpacked to."""

from __future__ import annotations

from qwen_aio.machine.folders import bundle_around


def test_the_home_of_a_package_in_the_environment_of_a_bundle_is_the_bundles_folder(tmp_path):
    package = tmp_path / "qwen-aio-1/.venv/lib/python3.11/site-packages/qwen_aio"
    assert bundle_around(package) is None  # an environment of that name beside anything else
    package.mkdir(parents=True)
    (tmp_path / "qwen-aio-1/bundle.json").write_text("{}")
    assert bundle_around(package) == tmp_path / "qwen-aio-1"
    assert bundle_around(tmp_path / "qwen-aio-1/lib/qwen_aio") is None
