"""Every file of the layer parses and expands, with each feature on and off and for each edition. A feature's content is
only there with the feature."""
import pytest

import layer

ON = {"DISTRO_FEATURES": "systemd tpm-greengrass", "MACHINE_FEATURES": "tpm-slb9670 tpm-swtpm"}
FEATURES = {"off": {}, "on": ON}
EDITIONS = ["nucleus", "nucleus-lite", "none"]

RPI = "dynamic-layers/raspberrypi"
AWS = "dynamic-layers/meta-aws/recipes-iot/aws-iot-greengrass"
PACKAGEGROUP = "recipes-tpm-greengrass/packagegroups/packagegroup-tpm-greengrass.bb"
FIRSTBOOT = "recipes-tpm-greengrass/firstboot/firstboot_0.1.0.bb"


def names(paths):
    return [str(path.relative_to(layer.LAYER)) for path in paths]


def own(d):
    """The expanded variables that the layer's files set, without those of every datastore."""
    return {key: d.getVar(key) for key in d if not key.startswith(("_", "bb", "FILE", "BBINCLUDED"))}


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("path", names(layer.files("*.bb", "*.bbappend", "layer.conf")))
def test_file_parses_and_expands(parse, path, features, edition):
    own(parse(path, **FEATURES[features], TPM_GREENGRASS_EDITION=edition))


@pytest.mark.parametrize("path", names(layer.files("*.bbappend")))
def test_an_append_does_nothing_without_its_feature(parse, tmp_path, path):
    before = {"PN", "PV", "BP", "BPN", "P", "THISDIR", "WORKDIR", "OVERRIDES"}
    d = parse(path)
    empty = tmp_path / "empty_1.0.bb"
    empty.touch()
    assert set(own(d)) - before == set(own(layer.parse(empty, tmp_path))) - before


def test_images_inherit_nothing_without_a_feature(parse):
    assert parse("conf/layer.conf").getVar("IMAGE_CLASSES").split() == []


@pytest.mark.parametrize(
    "variable, feature, inherited",
    [
        ("DISTRO_FEATURES", "tpm-greengrass", ["firstboot_card", "firstboot_state"]),
        ("MACHINE_FEATURES", "tpm-slb9670", ["tpm_slb9670_card"]),
        ("MACHINE_FEATURES", "tpm-swtpm", ["tpm_swtpm_qemu"]),
    ],
)
def test_a_feature_adds_its_classes_to_images(parse, variable, feature, inherited):
    d = parse("conf/layer.conf", **{variable: feature})
    assert d.getVar("IMAGE_CLASSES").split() == inherited
    assert all((layer.LAYER / "classes-recipe" / f"{name}.bbclass").exists() for name in inherited)


KERNELS = names(layer.files("linux-raspberrypi*.bbappend"))
# The OVERRIDES of meta-raspberrypi's machines that matter here: architecture, machine.
MACHINES = {"aarch64:raspberrypi3-64": True, "aarch64:raspberrypi5": True, "aarch64:raspberrypi-armv8": True,
            "arm:raspberrypi-armv7": False, "arm:raspberrypi4": False}


@pytest.mark.parametrize("machine, may_be_a_pi_5", MACHINES.items())
@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_has_the_spi_controllers_of_its_boards(parse, kernel, machine, may_be_a_pi_5):
    assert parse(kernel, machine).getVar("SRC_URI") is None
    fragments = parse(kernel, machine, **ON).getVar("SRC_URI").split()
    assert fragments == ["file://tpm-slb9670.cfg"] + ["file://tpm-slb9670-rp1.cfg"] * may_be_a_pi_5


def test_a_32_bit_image_for_all_boards_has_two_kernels():
    """raspberrypi-armv7 builds linux-raspberrypi-v7 for its older boards."""
    assert {path.rpartition("/")[2] for path in KERNELS} == {
        "linux-raspberrypi_%.bbappend", "linux-raspberrypi-v7_%.bbappend"}


@pytest.mark.parametrize("edition, brings", [("nucleus", {"greengrass-bin", "greengrass-plugin-pkcs11"}),
                                             ("nucleus-lite", {"greengrass-lite"}), ("none", set())])
def test_the_edition_decides_which_greengrass(parse, edition, brings):
    needs = parse(PACKAGEGROUP, TPM_GREENGRASS_EDITION=edition).getVar(
        "RDEPENDS:packagegroup-tpm-greengrass").split()
    assert {name for name in needs if name.startswith("greengrass")} == brings
    assert {"firstboot", "libtss2-tcti-device", "tpm2-pkcs11", "pkcs11-provider"} <= set(needs)
    assert not {"tpm2-abrmd", "firstboot-eap-tls"} & set(needs)


@pytest.mark.parametrize("value, brings", [("1", True), ("yes", True), ("0", False)])
def test_networks_are_a_choice(parse, value, brings):
    needs = parse(PACKAGEGROUP, TPM_GREENGRASS_EAP_TLS=value).getVar("RDEPENDS:packagegroup-tpm-greengrass")
    assert ("firstboot-eap-tls" in needs.split()) == brings


def renamed_in_an_allarch_group(d):
    """The packages for which packaging ends with "An allarch packagegroup shouldn't depend on packages which
    are dynamically renamed": debian.bbclass renames those of libraries, which by custom begin with lib."""
    if not layer.bb.data.inherits_class("allarch", d):
        return []
    needs = d.getVar(f"RDEPENDS:{d.getVar('PN')}").split()
    return [name for name in needs if name.startswith("lib")]


@pytest.mark.parametrize("path", names(layer.files("packagegroup-*.bb")))
def test_a_packagegroup_with_libraries_has_an_architecture(parse, path):
    assert renamed_in_an_allarch_group(parse(path, TUNE_PKGARCH="cortexa72", **ON)) == []


@pytest.mark.parametrize("head, needs, renamed", [
    ("", "libp11", ["libp11"]),
    ("", "firstboot", []),
    ('PACKAGE_ARCH = "${MACHINE_ARCH}"\n', "libp11", []),
])
def test_the_check_of_packagegroups_sees_an_allarch_one(parse, tmp_path, head, needs, renamed):
    group = tmp_path / "packagegroup-other.bb"
    group.write_text(f'{head}inherit packagegroup\nRDEPENDS:${{PN}} = "{needs}"\n')
    assert renamed_in_an_allarch_group(parse(group, MACHINE_ARCH="board")) == renamed


@pytest.mark.parametrize("image", names(layer.files("tpm-greengrass-image*.bb")))
def test_no_image_brings_a_mime_database_and_its_libraries(parse, image):
    d = parse(image, BAD_RECOMMENDATIONS="busybox-syslog")
    assert d.getVar("BAD_RECOMMENDATIONS").split() == ["busybox-syslog", "systemd-mime"]


@pytest.mark.parametrize("variables, says", [
    ({"TPM_GREENGRASS_EDITION": "v3"}, "it can be none, nucleus, nucleus-lite"),
    ({"BBFILE_COLLECTIONS": "core"}, "needs the layer meta-aws"),
])
def test_an_impossible_edition_is_reported(parse, variables, says):
    with pytest.raises(Exception, match=says):
        parse(PACKAGEGROUP, **variables).getVar("RDEPENDS:packagegroup-tpm-greengrass")


def test_no_pin_and_no_second_enrollment_reach_the_image(parse):
    recipe = parse(f"{AWS}/greengrass-bin_%.bbappend", PACKAGECONFIG="fleetprovisioning", **ON)
    assert recipe.getVar("PACKAGECONFIG").split() == ["pkcs11"]
    assert "userPin" in recipe.getVar("do_merge_config")
    lite = parse(f"{AWS}/greengrass-lite_%.bbappend", PACKAGECONFIG="fleetprovisioning", **ON)
    assert lite.getVar("PACKAGECONFIG").split() == []
    plugin = parse(f"{AWS}/greengrass-plugin-pkcs11_%.bbappend", **ON)
    assert plugin.getVar("do_deploy").strip() == ":"


def test_the_store_is_where_firstboot_builds_it(parse):
    d = parse("recipes-tpm2/tpm2-pkcs11/tpm2-pkcs11_%.bbappend", **ON)
    assert "--with-storedir=/var/lib/tpm2_pkcs11" in d.getVar("EXTRA_OECONF")
    assert '"/var/lib/tpm2_pkcs11"' in (layer.REPOSITORY / "firstboot/src/layout.rs").read_text()


def test_no_tool_in_python_is_built_for_an_image_without_python(parse):
    """bitbake builds what each package of a recipe needs at run time, whether or not an image has it."""
    def needs(**features):
        d = parse("recipes-tpm2/tpm2-pkcs11/tpm2-pkcs11_%.bbappend", recipe='RDEPENDS:${PN}-tools = "python3-tpm2-pytss"\n',
                  **features)
        return d.getVar("RDEPENDS:tpm2-pkcs11-tools").split()

    assert needs(**ON) == []
    assert needs() == ["python3-tpm2-pytss"]
