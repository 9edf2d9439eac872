"""The licence texts in the repository are those of the crates that Cargo.lock names."""
import notices
import pytest
from crates import REPOSITORY

MIT = "The MIT License\n\nPermission is hereby granted, free of\ncharge, to any person\n"
APACHE = "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION\n"
UNICODE = "UNICODE, INC. LICENSE AGREEMENT - DATA FILES AND SOFTWARE\n"


@pytest.mark.parametrize("folder", ["firstboot", "firstboot/station"])
def test_third_party_txt_is_current(folder):
    committed = (REPOSITORY / folder / "THIRD-PARTY.txt").read_text()
    assert committed == notices.notices(folder), "run `make generated`"


def crate(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", "-")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def test_the_texts_are_those_of_the_licences_chosen(tmp_path):
    folder = crate(tmp_path, LICENSE_MIT=MIT, LICENSE_APACHE=APACHE, COPYING="either of them", README=APACHE)
    both = frozenset(["MIT", "Apache-2.0"])
    assert notices.texts_of(folder, {"MIT"}, both) == ({"MIT"}, ["either of them", MIT])


def test_texts_of_code_that_a_crate_took_over_are_kept(tmp_path):
    folder = crate(tmp_path, LICENSE=MIT, src__LICENSE_UNICODE=UNICODE)
    found, texts = notices.texts_of(folder, frozenset(["MIT"]), frozenset(["MIT"]))
    assert found == {"MIT", "Unicode-DFS-2016"} and texts == [MIT, UNICODE]


def test_a_licence_without_its_text_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="has no text of MIT"):
        notices.texts_of(crate(tmp_path, LICENSE=APACHE), frozenset(["MIT"]), frozenset(["MIT"]))


def test_the_first_of_deny_toml_is_chosen():
    choice = [frozenset(["Apache-2.0"]), frozenset(["MIT"]), frozenset(["GPL-3.0-only"])]
    assert notices.chosen(choice) == {"MIT"}
