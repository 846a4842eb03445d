"""When the hub counts as offline."""

import pytest

from beft.data.hub import hub_is_offline


@pytest.mark.parametrize("value", ["1", "on", "ON", "yes", "Yes", "true", "TRUE"])
def test_the_environment_switches_the_hub_off(value, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert hub_is_offline(False)


@pytest.mark.parametrize("value", [None, "", "0", "no", "off"])
def test_otherwise_the_argument_decides(value, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert hub_is_offline(True) and not hub_is_offline(False)
