require ${@bb.utils.contains('DISTRO_FEATURES', 'tpm-greengrass', 'tpm2-pkcs11-firstboot.inc', '', d)}
