require ${@bb.utils.contains('DISTRO_FEATURES', 'tpm-greengrass', 'greengrass-plugin-pkcs11-firstboot.inc', '', d)}
