SUMMARY = "The operator's page and example settings, for the card's FAT partition"
DESCRIPTION = "README.txt and firstboot.json.example, in the folder firstboot/ of the boot partition."
SECTION = "security"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://README.txt \
    file://firstboot.json.example \
"

S = "${UNPACKDIR}"

inherit deploy nopackages

INHIBIT_DEFAULT_DEPS = "1"
PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

# CR LF, because Windows' Notepad opens the page.
do_deploy() {
    install -d ${DEPLOYDIR}/firstboot
    sed 's/$/\r/' ${S}/README.txt >${DEPLOYDIR}/firstboot/README.txt
    install -m 0644 ${S}/firstboot.json.example ${DEPLOYDIR}/firstboot
}
addtask deploy after do_unpack before do_build
