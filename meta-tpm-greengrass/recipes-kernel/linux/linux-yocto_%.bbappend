require ${@bb.utils.contains('MACHINE_FEATURES', 'tpm-swtpm', 'linux-yocto-tpm-swtpm.inc', '', d)}
