"""The nodes in other languages: nothing missing, nothing stale, numbers and code words as in English."""

from __future__ import annotations

import re

import pytest

from support.languages import build_locales
from support.server import ComfyServer

NUMBER = re.compile(r"\d+(?:\.\d+)?")
CODE = re.compile(r"[a-z]+(?:/[a-z]+)+|embedding:[\w-]+|\b\w+_\d{4}\b|\{\w*\}")


@pytest.mark.parametrize("language", build_locales.LANGUAGES)
def test_every_text_of_the_nodes_has_a_translation_and_no_other(language: str) -> None:
    missing, stale = build_locales.differences(language)
    assert not missing, "add them to tests/support/languages"
    assert not stale, "take them out of tests/support/languages"


def test_the_locale_files_are_up_to_date() -> None:
    stale = [str(path) for path, text in build_locales.files().items() if not path.exists() or path.read_text() != text]
    assert not stale, "write them with: python tests/support/languages/build_locales.py"


@pytest.mark.parametrize("language", build_locales.LANGUAGES)
def test_translations_keep_numbers_and_code(language: str) -> None:
    for english, translated in build_locales.translation(language)["texts"].items():
        for kind in (NUMBER, CODE):
            assert sorted(kind.findall(translated)) == sorted(kind.findall(english)), english


def test_special_characters_are_escaped_for_the_frontends_messages() -> None:
    assert build_locales.escaped("{} a|b") == "{'{'}{'}'} a{'|'}b"


def test_the_host_serves_them(server: ComfyServer) -> None:
    served = server.get("/i18n")
    for language in ("en", *build_locales.LANGUAGES):
        assert "CompInvTrainConcept" in served[language]["nodeDefs"]
    assert served["de"]["nodeDefs"]["CompInvDetect"]["display_name"] == "Erkennen"
