"""oelint-adv finds nothing for the release. Rules that are switched off are listed here with the reason; a line's
suppression is in that line."""
import pathlib
import re
import subprocess
import sys

import layer

SUPPRESSED = {
    "oelint.var.bbclassextend": "nothing here is built for the build machine or an SDK",
    "oelint.var.licenseremotefile": "the sources are this repository's own",
    "oelint.var.mandatoryvar.HOMEPAGE": "the project has no public address yet",
    "oelint.var.suggestedvar.BUGTRACKER": "nor has its bug tracker",
    "oelint.var.suggestedvar.CVE_PRODUCT": "nobody else ships a firstboot",
    "oelint.var.suggestedvar.SECTION": "packagegroup and images are in none",
    "oelint.vars.fileextrapaths": "the sources lie beside the layer, in the same repository",
    "oelint.vars.outofcontext": "the same",
    "oelint.vars.mispell.unknown": "knows neither meta-raspberrypi's variables nor ours",
    "oelint.vars.noncoreoverride": "each .bbappend asks for its feature before it requires anything",
    "oelint.vars.srcurifile": "does not see that the crates come after",
    "oelint.task.docstrings": "takes the functions of a recipe for tasks",
}


def test_the_layer_is_clean():
    tool = pathlib.Path(sys.executable).with_name("oelint-adv")
    arguments = [argument for rule in SUPPRESSED for argument in ("--suppress", rule)]
    files = layer.files("*.bb", "*.bbappend", "*.bbclass", "*.inc", "layer.conf")
    result = subprocess.run([tool, "--quiet", "--release", "wrynose", *arguments, *files],
                            capture_output=True, text=True, cwd=layer.LAYER)
    assert result.returncode == 0, result.stderr + result.stdout


def test_nobody_is_told_to_write_to_an_address_that_cannot_exist():
    """RFC 2606 reserves these names for examples: a report sent there reaches nobody."""
    root = layer.REPOSITORY
    for page in (*root.glob("*.md"), *root.glob("docs/**/*.md"), *layer.LAYER.glob("**/*.md")):
        assert re.findall(r"\S+@\S+\.(?:example|invalid|test)\b", page.read_text()) == [], page
