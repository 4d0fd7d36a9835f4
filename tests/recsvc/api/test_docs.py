"""The interactive description comes whole from this machine."""

import re

import httpx


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) >= 3
    assert all(link.startswith("/") for link in linked)
    for link in linked:
        asset = client.get(link)
        assert asset.status_code == 200
        assert len(asset.content) > 100
    assert "https://" not in page.text
    assert client.get("/docs/assets/../../pyproject.toml").status_code == 404
