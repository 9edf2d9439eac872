"""Parses a file of the layer with bitbake's parser, outside a build: other layers' classes are empty, and their
variables are only set if a check needs them."""
import pathlib
import re
import sys
import types

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LAYER = REPOSITORY / "meta-tpm-greengrass"

# bb.siggen imports it, and the PyPI package lacks it. Nothing here computes signatures.
for name in ("hashserv", "hashserv.client"):
    sys.modules.setdefault(name, types.ModuleType(name))
import bb  # noqa: E402
import bb.data  # noqa: E402
import bb.data_smart  # noqa: E402
import bb.parse  # noqa: E402
import bb.siggen  # noqa: E402

bb.parse.siggen = bb.siggen.init(bb.data.init())

# From the release's bitbake.conf, what the layer's files use.
RELEASE = {
    "BBFILE_COLLECTIONS": "core openembedded-layer tpm-layer raspberrypi meta-aws",
    "COMMON_LICENSE_DIR": "/licenses",
    "THISDIR": "${@os.path.dirname(d.getVar('FILE'))}",
    "WORKDIR": "/build",
    "UNPACKDIR": "${WORKDIR}/sources",
    "S": "${UNPACKDIR}/${BP}",
    "B": "${WORKDIR}/build",
    "D": "${WORKDIR}/image",
    "prefix": "/usr",
    "bindir": "${prefix}/bin",
    "datadir": "${prefix}/share",
    "mandir": "${datadir}/man",
    "libdir": "${prefix}/lib",
    "nonarch_libdir": "${prefix}/lib",
    "localstatedir": "/var",
    "sysconfdir": "/etc",
    "systemd_system_unitdir": "${prefix}/lib/systemd/system",
    "BP": "${BPN}-${PV}",
    "BPN": "${PN}",
    "P": "${PN}-${PV}",
    "MACHINE_FEATURES": "",
    "DISTRO_FEATURES": "systemd",
}


def files(*patterns):
    """The layer's files that match a pattern."""
    return sorted(path for pattern in patterns for path in LAYER.rglob(pattern))


# The release's classes that need content; the others only have to be inheritable.
CLASSES = {
    # openembedded-core, meta/classes-recipe/packagegroup.bbclass: its PACKAGE_ARCH
    "packagegroup": """
PACKAGE_ARCH ?= "all"
PACKAGE_ARCH_EXPANDED := "${PACKAGE_ARCH}"
inherit_defer ${@'allarch' if d.getVar('PACKAGE_ARCH_EXPANDED') == 'all' else ''}
""",
    "allarch": "",
    # meta/classes-recipe/bash-completion.bbclass
    "bash-completion": """
PACKAGE_BEFORE_PN += "${PN}-bash-completion"
FILES:${PN}-bash-completion = "${datadir}/bash-completion ${sysconfdir}/bash_completion.d"
""",
}


def stub_classes(folder):
    """Creates the classes that the layer inherits and does not have, empty or from CLASSES."""
    (folder / "classes").mkdir(exist_ok=True)
    inherited = set(CLASSES)
    for path in files("*.bb", "*.bbclass", "*.inc"):
        for names in re.findall(r"^inherit (.*)$", path.read_text(), re.MULTILINE):
            inherited.update(names.split())
    for name in inherited:
        if not (LAYER / "classes-recipe" / f"{name}.bbclass").exists():
            (folder / "classes" / f"{name}.bbclass").write_text(CLASSES.get(name, ""))


def parse(path, stubs, overrides="", recipe="", **variables):
    """The datastore after parsing `path`, which for a bbappend is applied to a recipe with the text `recipe`."""
    stub_classes(stubs)
    d = bb.data.init()
    for name, value in {**RELEASE, **variables}.items():
        d.setVar(name, value)
    d.setVar("OVERRIDES", overrides)
    d.setVar("BBPATH", f"{stubs}:{LAYER}")
    d.setVar("__bbclasstype", "recipe")
    if path.name == "layer.conf":
        d.setVar("LAYERDIR", str(LAYER))
        return bb.parse.handle(str(path), d, True, baseconfig=True)
    name, _, version = path.stem.partition("_")
    d.setVar("PN", name)
    d.setVar("PV", version or "1.0")
    d.setVar("OVERRIDES", f"pn-{name}:{overrides}")
    if path.suffix == ".bbappend":
        base = stubs / f"{name}_1.0.bb"
        base.write_text(recipe)
        d.setVar("__BBAPPEND", str(path))
        path = base
    d.setVar("FILE", str(path))
    return bb.parse.handle(str(path), d)[""]


def function(d, name):
    """A Python task or function of a parsed file, compiled as by bitbake: a callable that takes `d`."""
    context = dict(bb.utils.get_context())
    exec(bb.utils.better_compile(f"def {name}(d):\n{d.getVar(name, False)}\n", name, d.getVar("FILE")), context)
    return context[name]
