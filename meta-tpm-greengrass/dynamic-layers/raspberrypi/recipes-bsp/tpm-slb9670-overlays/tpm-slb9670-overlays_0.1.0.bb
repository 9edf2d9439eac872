SUMMARY = "Device tree overlays for the Infineon OPTIGA SLB 9670 TPM on SPI"
DESCRIPTION = "tpm-slb9670 (chip select CE1) and tpm-slb9670-ce0. Built without the kernel, so that a new kernel does not rebuild them, nor they the kernel."
SECTION = "bsp"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=43d54c51b5034c6fc060dc931e6258fa"

# the device tree compiler
DEPENDS = "dtc-native"

# The sources are beside this layer, in the same repository.
FILESEXTRAPATHS:prepend := "${THISDIR}/../../../../..:"
SRC_URI = "\
    file://LICENSE \
    file://dts-overlays/Makefile \
    file://dts-overlays/tpm-slb9670-ce0.dts \
    file://dts-overlays/tpm-slb9670.dts \
"

S = "${UNPACKDIR}"

inherit deploy nopackages

INHIBIT_DEFAULT_DEPS = "1"
PACKAGE_ARCH = "${MACHINE_ARCH}"
COMPATIBLE_MACHINE = "^rpi$"

do_configure[noexec] = "1"
do_install[noexec] = "1"

do_compile() {
    oe_runmake -C ${S}/dts-overlays O=${B}
}

# In a folder of their own: the kernel deploys an overlay of the same name if KERNEL_DEVICETREE asks for it.
do_deploy() {
    install -d ${DEPLOYDIR}/tpm-slb9670
    install -m 0644 ${B}/*.dtbo ${DEPLOYDIR}/tpm-slb9670
}
addtask deploy after do_compile before do_build
