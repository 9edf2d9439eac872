"""The overlays compile without a warning and apply to boards' device trees, and the result conforms to the kernel's
binding. dts-overlays/README.md says what this does not prove."""
import pathlib
import re
import subprocess
import sys

import libfdt
import pytest

import kernel
import layer

# Mainline's device trees of the Pi 3B+ and the Pi 4, and its label for the header's SPI controller.
BOARDS = {"bcm2837-rpi-3-b-plus": "spi", "bcm2711-rpi-4-b": "spi"}
VARIANTS = {"tpm-slb9670": 1, "tpm-slb9670-ce0": 0}
SPI = "/soc/spi@7e204000"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder with the overlays, and the output of make and dtc."""
    out = tmp_path_factory.mktemp("overlays")
    return out, kernel.run(["make", "-s", "--no-print-directory", "-C", layer.REPOSITORY / "dts-overlays", f"O={out}"])


@pytest.fixture(scope="session", params=BOARDS)
def board(request, tmp_path_factory):
    """A board's device tree."""
    return kernel.device_tree(request.param, BOARDS[request.param], tmp_path_factory.mktemp("board") / "base.dtb")


@pytest.fixture(params=VARIANTS)
def merged(request, built, board, tmp_path):
    """(chip select, device tree file, parsed tree) of a board with a variant applied."""
    out = tmp_path / "merged.dtb"
    kernel.run(["fdtoverlay", "-i", board, "-o", out, built[0] / f"{request.param}.dtbo"])
    return VARIANTS[request.param], out, libfdt.Fdt(out.read_bytes())


@pytest.fixture(scope="session")
def validate(tmp_path_factory):
    """validate(device tree file) returns dt-validate's output about its TPMs, by the kernel's bindings."""
    tools = pathlib.Path(sys.executable).parent
    bindings = kernel.source() / "Documentation/devicetree/bindings"
    schema = tmp_path_factory.mktemp("schema") / "tpm.json"
    kernel.run([tools / "dt-mk-schema", "-j", "-o", schema, bindings / "tpm", bindings / "spi"])

    def run(dtb):
        command = [tools / "dt-validate", "-s", schema, "-l", "tpm", dtb]
        result = subprocess.run(command, capture_output=True, text=True)
        return result.stdout + result.stderr
    return run


def value(fdt, path, name):
    return fdt.getprop(fdt.path_offset(path), name)


def test_they_compile_without_a_warning(built):
    assert built[1] == ""
    assert {path.stem for path in built[0].glob("*.dtbo")} == set(VARIANTS)


def test_the_recipe_fetches_each_source():
    sources = {path.name for path in (layer.REPOSITORY / "dts-overlays").glob("*.dts")}
    [recipe] = layer.files("tpm-slb9670-overlays_*.bb")
    assert sources == set(re.findall(r"file://dts-overlays/(\S+\.dts)", recipe.read_text()))


def test_the_tpm_is_at_its_chip_select(merged):
    select, _, fdt = merged
    tpm = f"{SPI}/tpm@{select}"
    assert bytes(value(fdt, tpm, "compatible")) == b"infineon,slb9670\0tcg,tpm_tis-spi\0"
    assert value(fdt, tpm, "reg").as_uint32() == select
    assert value(fdt, tpm, "spi-max-frequency").as_uint32() == 32_000_000
    assert value(fdt, SPI, "status").as_str() == "okay"


def test_only_the_user_space_device_at_the_same_chip_select_gives_way(merged):
    select, _, fdt = merged
    assert value(fdt, f"{SPI}/spidev@{select}", "status").as_str() == "disabled"
    with pytest.raises(libfdt.FdtException):
        value(fdt, f"{SPI}/spidev@{1 - select}", "status")


def test_the_result_passes_the_binding(merged, validate):
    assert validate(merged[1]) == ""


def test_a_wrong_node_fails_the_binding(board, validate, tmp_path):
    """The check above would also pass if dt-validate did not know the binding."""
    source = (layer.REPOSITORY / "dts-overlays/tpm-slb9670.dts").read_text()
    (tmp_path / "bad.dts").write_text(source.replace(', "tcg,tpm_tis-spi"', "").replace("tpm@1", "slb9670@1"))
    kernel.run(["dtc", "-@", "-I", "dts", "-O", "dtb", "-o", tmp_path / "bad.dtbo", tmp_path / "bad.dts"])
    kernel.run(["fdtoverlay", "-i", board, "-o", tmp_path / "bad.dtb", tmp_path / "bad.dtbo"])
    assert "slb9670@1" in validate(tmp_path / "bad.dtb")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_speed_parameter_names_the_tpm_and_its_property(built, variant):
    """fdtoverlay leaves parameters to Raspberry Pi's firmware; this checks what the firmware will read."""
    fdt = libfdt.Fdt((built[0] / f"{variant}.dtbo").read_bytes())
    parameter = bytes(value(fdt, "/__overrides__", "speed"))
    target = fdt.node_offset_by_phandle(int.from_bytes(parameter[:4], "big"))
    assert fdt.get_name(target) == f"tpm@{VARIANTS[variant]}"
    assert parameter[4:] == b"spi-max-frequency:0\0"
    assert fdt.getprop(target, "spi-max-frequency")

