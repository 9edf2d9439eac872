"""Device trees and bindings of a mainline kernel, from Debian's package of its source."""
import os
import pathlib
import subprocess
import tempfile

import layer

PACKAGE = "linux-source-6.12"  # the first LTS kernel with the TPM's binding as a schema
PARTS = ["arch/arm/boot/dts/broadcom", "arch/arm64/boot/dts/broadcom", "include/dt-bindings",
         "scripts/dtc/include-prefixes", "Documentation/devicetree/bindings"]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", layer.REPOSITORY / "target")) / "layer"

# The labels and nodes that Raspberry Pi's device trees have and mainline's do not. The overlays' README.md says how
# this limits the checks.
PI_LABELS = """
spi0: &%s {
    status = "okay";
    spidev0: spidev@0 { compatible = "spidev"; reg = <0>; };
    spidev1: spidev@1 { compatible = "spidev"; reg = <1>; };
};
"""


def source():
    """The kernel's source folder. The first call downloads it and unpacks the part that is needed."""
    folder = TARGET / PACKAGE
    if not folder.exists():
        TARGET.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TARGET) as work:
            unpacked = pathlib.Path(work) / "linux"
            unpacked.mkdir()
            run(["apt-get", "download", "-qq", PACKAGE], cwd=work)
            [package] = pathlib.Path(work).glob("*.deb")
            wanted = " ".join(f"'*/{part}'" for part in PARTS)
            run(["sh", "-c", f"dpkg-deb --fsys-tarfile {package} | tar xO --wildcards '*.tar.xz' |"
                             f" tar xJ -C {unpacked} --strip-components=1 --wildcards {wanted}"])
            unpacked.rename(folder)
    return folder


def device_tree(board, spi_label, output):
    """Compiles mainline's device tree of `board`, with symbols and a Pi's labels."""
    kernel = source()
    prefixes = kernel / "scripts/dtc/include-prefixes"
    dts = output.with_suffix(".dts")
    text = f'#include "{kernel}/arch/arm64/boot/dts/broadcom/{board}.dts"\n' + PI_LABELS % spi_label
    dts.write_text(text)
    run(["sh", "-c", f"cpp -nostdinc -undef -D__DTS__ -x assembler-with-cpp -I {prefixes}"
                     f" -I {kernel}/arch/arm64/boot/dts/broadcom {dts} | dtc -q -@ -I dts -O dtb -o {output}"])
    return output


def run(command, **options):
    """Runs a command. If it fails, the exception has its output."""
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr
