# MACHINE_FEATURES tpm-swtpm: runqemu, and with it testimage, gives the machine a software TPM, new
# and unprovisioned at each start. Every image inherits it (conf/layer.conf).

# Keep it short: a UNIX socket's path may have 107 characters.
TPM_SWTPM_DIR ?= "${TMPDIR}/swtpm"

QB_SETUP_CMD = "\
    rm -rf ${TPM_SWTPM_DIR} && mkdir -p ${TPM_SWTPM_DIR} && \
    ${STAGING_BINDIR_NATIVE}/swtpm socket --tpm2 --daemon --terminate \
    --tpmstate dir=${TPM_SWTPM_DIR} --ctrl type=unixio,path=${TPM_SWTPM_DIR}/socket \
    --log file=${TPM_SWTPM_DIR}/log \
"
QB_OPT_APPEND:append = "\
    -chardev socket,id=chrtpm,path=${TPM_SWTPM_DIR}/socket \
    -tpmdev emulator,id=tpm0,chardev=chrtpm -device tpm-tis-device,tpmdev=tpm0 \
"

do_write_qemuboot_conf[depends] += "swtpm-native:do_populate_sysroot"
