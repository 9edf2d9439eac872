"""The image's firstboot.json: the image's variables override the defaults of the repository."""
import json
import unittest.mock

import pytest

import layer

FIRSTBOOT = "recipes-tpm-greengrass/firstboot/firstboot_0.1.0.bb"


def settings(parse, flags, **variables):
    d = parse(FIRSTBOOT, **variables)
    for key, value in flags.items():
        d.setVarFlag("FIRSTBOOT_SETTINGS", key, value)
    return json.loads(d.expand("${@firstboot_settings(d)}"))


def test_the_edition_and_the_platform_are_always_set(parse):
    assert settings(parse, {}) == {
        "greengrass": {"edition": "nucleus"},
        "platform": {
            "openssl_provider": "/usr/lib/ossl-modules/pkcs11.so",
            "pkcs11_module": "/usr/lib/pkcs11/libtpm2_pkcs11.so",
        },
    }


def test_a_multilib_image_says_where_its_libraries_are(parse):
    platform = settings(parse, {}, libdir="/usr/lib64")["platform"]
    assert platform["pkcs11_module"] == "/usr/lib64/pkcs11/libtpm2_pkcs11.so"


def test_without_an_edition_the_operator_chooses(parse):
    assert "greengrass" not in settings(parse, {}, TPM_GREENGRASS_EDITION="none")
    v1 = settings(parse, {"greengrass.edition": "v1"}, TPM_GREENGRASS_EDITION="none")
    assert v1["greengrass"] == {"edition": "v1"}


def test_flags_become_keys(parse):
    given = settings(parse, {"thing_name": "pump-${serial}", "greengrass.aws_region": "eu-central-1"})
    assert given["thing_name"] == "pump-${serial}"
    assert given["greengrass"] == {"edition": "nucleus", "aws_region": "eu-central-1"}


def test_numbers_are_numbers_and_parameters_are_strings(parse):
    given = settings(parse, {
        "enrollment.port": "443", "enrollment.spread_seconds": "100", "enrollment.trust_clock": "1",
        "enrollment.template_parameters.Batch": "7",
    })
    assert given["enrollment"] == {
        "port": 443, "spread_seconds": 100, "trust_clock": True, "template_parameters": {"Batch": "7"},
    }


def test_issuers_are_a_list(parse):
    given = settings(parse, {"enrollment.issuers": "00:11  22:33"})
    assert given["enrollment"] == {"issuers": ["00:11", "22:33"]}
    assert settings(parse, {"enrollment.issuers": ""})["enrollment"] == {"issuers": []}


def test_renewals_are_a_section(parse):
    assert settings(parse, {"renew.at": "30 days"})["renew"] == {"at": "30 days"}


def test_networks_are_json(parse):
    given = settings(parse, {
        "network.country": "DE",
        "network.eap_tls": '[{"interface": "eth0", "domain": "radius.example.com"}]',
    })
    assert given["network"] == {
        "country": "DE", "eap_tls": [{"interface": "eth0", "domain": "radius.example.com"}],
    }
    assert settings(parse, {"network.eap_tls": ""})["network"] == {"eap_tls": []}


def test_networks_that_are_no_json_are_named(parse):
    # bitbake says what bb.fatal is told, and ends.
    with pytest.raises(Exception), unittest.mock.patch("bb.fatal", side_effect=layer.bb.BBHandledException) as fatal:
        settings(parse, {"network.eap_tls": "[{'interface': 'eth0'}]"})
    assert fatal.call_args[0][0].startswith("FIRSTBOOT_SETTINGS[network.eap_tls] is not JSON: ")


def test_the_references_example_of_networks_is_json(parse, tmp_path):
    page = (layer.LAYER / "docs/reference.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith("FIRSTBOOT_SETTINGS[network.eap_tls]")]
    recipe = tmp_path / "some-settings.bb"
    recipe.write_text(line + "\n")
    value = parse(recipe).getVarFlag("FIRSTBOOT_SETTINGS", "network.eap_tls")
    assert json.loads(value)[0]["interface"] == "eth0"


def test_the_cards_example_has_only_keys_that_firstboot_knows():
    card = layer.LAYER / "recipes-tpm-greengrass/firstboot-card/files"
    example = json.loads((card / "firstboot.json.example").read_text())
    sources = (layer.REPOSITORY / "firstboot/src/settings").glob("*.rs")
    source = "".join(path.read_text() for path in sources)
    page = (card / "README.txt").read_text()
    for key in [*example, *example["greengrass"], *example["enrollment"]]:
        assert f"pub {key}:" in source, key
        assert key in page or key == "greengrass", key
