"""What a library says and we understand is dropped; what we do not know comes through."""

import logging

import pytest

from adapters.family.load import load_lm
from data_prep.base_files import resolve_base
from data_prep.known_remarks import KNOWN, drop_known_remarks


@pytest.mark.parametrize("name", KNOWN)
def test_only_what_is_known_is_dropped(name: str, caplog: pytest.LogCaptureFixture) -> None:
    drop_known_remarks()
    drop_known_remarks()
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)  # a command may have hushed what is above it, and loggers remember what they asked
    logger.addHandler(caplog.handler)  # transformers' loggers do not hand on to the root
    try:
        for beginning in KNOWN[name]:
            logger.warning("%s, and so on", beginning)
        logger.warning("your weights are damaged")
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(before)
    assert {record.getMessage() for record in caplog.records} == {"your weights are damaged"}
    assert len(logger.filters) == 1


def test_loading_a_base_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    load_lm(resolve_base("debug"))
    assert "token_id" not in capfd.readouterr().err
