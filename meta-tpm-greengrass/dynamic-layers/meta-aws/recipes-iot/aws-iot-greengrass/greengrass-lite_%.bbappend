require ${@bb.utils.contains('DISTRO_FEATURES', 'tpm-greengrass', 'greengrass-lite-firstboot.inc', '', d)}
