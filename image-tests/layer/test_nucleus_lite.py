"""nucleus lite's components do not run as its daemons' user, who may read the token's PIN."""
import re

import pytest
import yaml

import layer

RECIPE = "dynamic-layers/meta-aws/recipes-iot/aws-iot-greengrass/greengrass-lite_%.bbappend"
ON = {"DISTRO_FEATURES": "systemd tpm-greengrass"}
OURS = "gg_component:gg_component"

# meta-aws's config.d/greengrass-lite.yaml (wrynose), and an equivalent one.
META_AWS = """---
system:
  rootPath: "/var/lib/greengrass"
services:
  aws.greengrass.NucleusLite:
    componentType: "NUCLEUS"
    configuration:
      runWithDefault:
        posixUser: "ggcore:ggcore"
      greengrassDataPlanePort: "8443"
      platformOverride: {}
"""


def in_other_words(value):
    return META_AWS.replace('posixUser: "ggcore:ggcore"', f"posixUser: {value}")


def installed(parse, root, files):
    """config.d after the append's do_install has run on `files`."""
    folder = root / "image/etc/greengrass/config.d"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    d = parse(RECIPE, D=str(root / "image"), **ON)
    for name in d.getVarFlag("do_install", "postfuncs").split():
        layer.function(d, name)(d)
    return {path.name: path.read_text() for path in folder.iterdir()}


def merged(documents):
    """ggconfigd's configuration: each file merged over those before it."""
    def lay(over, under):
        for key, value in over.items():
            under[key] = lay(value, under.get(key, {})) if isinstance(value, dict) else value
        return under
    whole = {}
    for document in documents:
        lay(yaml.safe_load(document), whole)
    return whole["services"]["aws.greengrass.NucleusLite"]["configuration"]


def firstboots():
    """The part of config.yaml that sets the components' user, as firstboot writes it."""
    source = (layer.REPOSITORY / "firstboot/src/greengrass/nucleus_lite.rs").read_text()
    [user] = re.findall(r'"posixUser": "(.*?)"', source)
    return in_other_words(f'"{user}"')


FLOW = META_AWS.replace('runWithDefault:\n        posixUser: "ggcore:ggcore"', "runWithDefault: {posixUser: 'ggcore:ggcore'}")
SILENT = META_AWS.replace('      runWithDefault:\n        posixUser: "ggcore:ggcore"\n', "")


@pytest.mark.parametrize("text", [
    META_AWS,
    in_other_words("ggcore:ggcore"),
    in_other_words("'ggcore:ggcore' # the daemons' own"),
    in_other_words("ggcore"),
    FLOW,
    META_AWS.replace("posixUser:", '"posixUser" :'),
])
def test_components_do_not_run_as_the_daemons(parse, tmp_path, text):
    [text] = installed(parse, tmp_path, {"greengrass-lite.yaml": text}).values()
    configuration = merged([firstboots(), text])
    assert configuration["runWithDefault"]["posixUser"] == OURS
    assert configuration["greengrassDataPlanePort"] == "8443"


def test_every_file_of_the_folder_counts(parse, tmp_path):
    files = installed(parse, tmp_path, {"a.yaml": FLOW, "greengrass-lite.yaml": META_AWS, "z.yaml": SILENT})
    for last in files.values():
        assert merged([firstboots(), *files.values(), last])["runWithDefault"]["posixUser"] == OURS


@pytest.mark.parametrize("value", ['"app:app"', "ggcore2:root-less", "gg_component:gg_component # ours", "1000:1000"])
def test_a_user_of_the_images_own_stays(parse, tmp_path, value):
    files = {"greengrass-lite.yaml": in_other_words(value), "logging.yaml": SILENT}
    assert installed(parse, tmp_path, files) == files


@pytest.mark.parametrize("text", [
    SILENT,
    in_other_words(">\n          ggcore:ggcore"),
    in_other_words("@GG_USER@:@GG_GROUP@"),
    in_other_words("!!str ggcore"),
    in_other_words('"app:ggcore"'),
    in_other_words('"root:root"'),
])
def test_what_it_cannot_fix_fails_the_build(parse, tmp_path, text):
    with pytest.raises(layer.bb.BBHandledException):
        installed(parse, tmp_path, {"greengrass-lite.yaml": text})
