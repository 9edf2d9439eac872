require ${@bb.utils.contains('DISTRO_FEATURES', 'tpm-greengrass', 'greengrass-bin-firstboot.inc', '', d)}
