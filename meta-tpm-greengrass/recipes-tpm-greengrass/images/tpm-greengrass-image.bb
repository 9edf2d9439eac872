SUMMARY = "A Greengrass core device with its key in the TPM"
DESCRIPTION = "Flash it, power on once: no step by hand, no shared PIN."
LICENSE = "MIT"

inherit core-image features_check

REQUIRED_DISTRO_FEATURES = "systemd tpm-greengrass"

IMAGE_INSTALL = "packagegroup-core-boot packagegroup-tpm-greengrass ${CORE_IMAGE_EXTRA_INSTALL}"

IMAGE_LINGUAS = ""

# systemd recommends a desktop's database of MIME types, and with it glib-2.0, libxml2 and libpcre2.
BAD_RECOMMENDATIONS += "systemd-mime"
