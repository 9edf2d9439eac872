# MACHINE_FEATURES tpm-swtpm: runqemu, and with it testimage, gives the machine a software TPM, new
# and unprovisioned at each start. Every image inherits it (conf/layer.conf).

# Keep it short: a UNIX socket's path may have 107 characters.
TPM_SWTPM_DIR ?= "${TMPDIR}/swtpm"

# meta-tpm's wrapper, and the programs that it starts, outlast the build. The image's own sysroot does not: rm_work
# removes it, and an image from sstate has none.
TPM_SWTPM = "${BASE_WORKDIR}/${BUILD_SYS}/swtpm-wrappers-native/1.0/swtpm_oe.sh"
EXTRA_IMAGEDEPENDS += "swtpm-wrappers-native:do_create_wrapper"
TESTIMAGEDEPENDS:append = " swtpm-wrappers-native:do_create_wrapper"

QB_SETUP_CMD = "\
    rm -rf ${TPM_SWTPM_DIR} && mkdir -p ${TPM_SWTPM_DIR} && \
    ${TPM_SWTPM} socket --tpm2 --daemon --terminate \
    --tpmstate dir=${TPM_SWTPM_DIR} --ctrl type=unixio,path=${TPM_SWTPM_DIR}/socket \
    --log file=${TPM_SWTPM_DIR}/log \
"
QB_OPT_APPEND:append = "\
    -chardev socket,id=chrtpm,path=${TPM_SWTPM_DIR}/socket \
    -tpmdev emulator,id=tpm0,chardev=chrtpm -device tpm-tis-device,tpmdev=tpm0 \
"
