require ${@bb.utils.contains('MACHINE_FEATURES', 'tpm-slb9670', 'rpi-config-tpm-slb9670.inc', '', d)}
