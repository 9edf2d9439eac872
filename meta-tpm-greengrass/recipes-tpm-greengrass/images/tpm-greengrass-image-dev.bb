require tpm-greengrass-image.bb

SUMMARY:append = " with tools and tests"
DESCRIPTION:append = " For the bench and for testimage, not for the field: root has no password."

# testimage logs in as root without a password.
# nooelint: oelint.var.badimagefeature - this is what the image is for
IMAGE_FEATURES += "allow-empty-password allow-root-login empty-root-password ssh-server-openssh"

# opensc: pkcs11-tool. openssl-bin: openssl. p11-kit: the module list.
IMAGE_INSTALL += "opensc openssl-bin p11-kit"
IMAGE_INSTALL += "${@bb.utils.contains('DISTRO_FEATURES', 'ptest', 'firstboot-ptest', '', d)}"

TEST_SUITES = "ping ssh tpm_greengrass"
