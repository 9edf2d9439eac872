SUMMARY = "A TPM-backed AWS IoT Greengrass core device"
DESCRIPTION = "firstboot, the libraries that it loads, Greengrass's way to the key, and tools for diagnosis. No Python, and nothing for TPM 1.2."

# Not "all", the class's default: debian.bbclass renames packages with a library in them (libp11 to libp11-3),
# and a packagegroup that names those is bound to their architecture. The class checks when it is inherited.
PACKAGE_ARCH = "${TUNE_PKGARCH}"

inherit packagegroup features_check tpm_greengrass

REQUIRED_DISTRO_FEATURES = "systemd tpm-greengrass"

# docs/reference.md
TPM_GREENGRASS_ABRMD ?= "0"
TPM_GREENGRASS_EAP_TLS ?= "0"

# libp11: the engine, and the provider pkcs11prov, for programs that want libp11's
# pkcs11-provider: nucleus lite's way to the key
# tpm2-pkcs11: the token
# tpm2-tools: diagnosis
# tpm2-tss: the udev rule and the group that make /dev/tpmrm0 accessible
RDEPENDS:${PN} = "\
    firstboot \
    libp11 \
    libtss2-tcti-device \
    pkcs11-provider \
    tpm2-pkcs11 \
    tpm2-tools \
    tpm2-tss \
"
# nooelint: oelint.vars.dependsordered - these come last, as they are not names
RDEPENDS:${PN} += "${@tpm_greengrass_packages(d)}"
RDEPENDS:${PN} += "${@'tpm2-abrmd' if bb.utils.to_boolean(d.getVar('TPM_GREENGRASS_ABRMD')) else ''}"
RDEPENDS:${PN} += "${@'firstboot-eap-tls' if bb.utils.to_boolean(d.getVar('TPM_GREENGRASS_EAP_TLS')) else ''}"
