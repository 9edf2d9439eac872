require ${@bb.utils.contains('MACHINE_FEATURES', 'tpm-slb9670', 'linux-raspberrypi-tpm-slb9670.inc', '', d)}
