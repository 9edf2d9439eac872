SUMMARY = "Turns an unprovisioned TPM into a Greengrass identity on first boot"
DESCRIPTION = "Makes a token, a key and a certificate request in the TPM, waits for the certificate, and configures Greengrass to use both. A power cut at any moment leaves nothing that needs a person."
SECTION = "security"
# firstboot's own, and those of its linked crates. Both files are in the package, too.
LICENSE = "Apache-2.0 & BSD-3-Clause & ISC & MIT & Unicode-DFS-2016 & Zlib"
LIC_FILES_CHKSUM = "\
    file://LICENSE;md5=43d54c51b5034c6fc060dc931e6258fa \
    file://firstboot/THIRD-PARTY.txt;md5=f45f550870064caf0745ab8e35901c0f \
"

# libcrypto, libsqlite3 and libtss2: firstboot links them. Their Rust bindings are pre-generated.
DEPENDS = "openssl sqlite3 tpm2-tss"

# The program's source is beside this layer, in the same repository: file by file, because the
# build's own folder, target/, must not get in, nor firstboot/station, which no device has.
FILESEXTRAPATHS:prepend := "${THISDIR}/../../..:"
SRC_URI = "\
    file://Cargo.lock \
    file://Cargo.toml \
    file://LICENSE \
    file://firstboot/Cargo.toml \
    file://firstboot/Makefile \
    file://firstboot/THIRD-PARTY.txt \
    file://firstboot/completions \
    file://firstboot/conf \
    file://firstboot/formats/Cargo.toml \
    file://firstboot/formats/src \
    file://firstboot/formats/vectors \
    file://firstboot/man \
    file://firstboot/src \
    file://firstboot/systemd \
"
require ${BPN}-crates.inc

S = "${UNPACKDIR}"

inherit bash-completion cargo features_check pkgconfig ptest-cargo systemd tpm_greengrass

REQUIRED_DISTRO_FEATURES = "systemd"

# bitbake strips, and keeps the symbols for the -dbg package.
export CARGO_PROFILE_RELEASE_STRIP = "none"

# One rule installs everything, here and in the tests: firstboot/Makefile.
do_install() {
    oe_runmake -C ${S}/firstboot install DESTDIR=${D} \
        prefix=${prefix} bindir=${bindir} datadir=${datadir} mandir=${mandir} lib=${nonarch_libdir} \
        BINARY=${B}/target/${CARGO_TARGET_SUBDIR}/firstboot
}

# FIRSTBOOT_SETTINGS[path.to.key] = "value": overrides the defaults of firstboot.json.
FIRSTBOOT_SETTINGS[doc] = "The image's settings for firstboot; see meta-tpm-greengrass's docs/reference.md"

def firstboot_settings(d):
    """The image's settings as the JSON text that goes into the package."""
    import json
    settings = {}
    flat = {key: value for key, value in (d.getVarFlags('FIRSTBOOT_SETTINGS') or {}).items() if key != 'doc'}
    if d.getVar('TPM_GREENGRASS_EDITION') != 'none':
        flat.setdefault('greengrass.edition', d.getVar('TPM_GREENGRASS_EDITION'))
    # In JSON these are not strings.
    for key in ('enrollment.port', 'enrollment.spread_seconds'):
        if key in flat:
            flat[key] = int(flat[key])
    if 'enrollment.trust_clock' in flat:
        flat['enrollment.trust_clock'] = bb.utils.to_boolean(flat['enrollment.trust_clock'])
    if 'enrollment.issuers' in flat:
        flat['enrollment.issuers'] = flat['enrollment.issuers'].split()
    if 'network.eap_tls' in flat:
        try:
            flat['network.eap_tls'] = json.loads(flat['network.eap_tls'] or '[]')
        except ValueError as why:
            bb.fatal(f"FIRSTBOOT_SETTINGS[network.eap_tls] is not JSON: {why}")
    flat['platform.pkcs11_module'] = d.expand('${libdir}/pkcs11/libtpm2_pkcs11.so')
    flat['platform.openssl_provider'] = d.expand('${libdir}/ossl-modules/pkcs11.so')
    for path, value in sorted(flat.items()):
        *sections, key = path.split('.')
        section = settings
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return json.dumps(settings)

python install_settings() {
    import json
    path = d.expand('${D}${nonarch_libdir}/firstboot/firstboot.json')

    def lay(over, under):
        for key, value in over.items():
            under[key] = lay(value, under.get(key, {})) if isinstance(value, dict) else value
        return under

    with open(path) as file:
        settings = json.load(file)
    with open(path, 'w') as file:
        json.dump(lay(json.loads(firstboot_settings(d)), settings), file, indent=2)
        file.write('\n')
}
do_install[postfuncs] += "install_settings"
install_settings[vardepvalue] = "${@firstboot_settings(d)}"

SYSTEMD_PACKAGES = "${PN} ${PN}-eap-tls"
SYSTEMD_SERVICE:${PN} = "firstboot.service firstboot-enroll.service firstboot-enroll.path firstboot-renew.timer"
SYSTEMD_SERVICE:${PN}-eap-tls = "firstboot-network.service firstboot-network.path"

# The manual page is in the -doc package, and bash's completions are in that of their class.
PACKAGE_BEFORE_PN += "${PN}-eap-tls ${PN}-fish-completion ${PN}-zsh-completion"
FILES:${PN} += "${nonarch_libdir}/firstboot ${nonarch_libdir}/tmpfiles.d ${nonarch_libdir}/systemd ${datadir}/licenses/${BPN}"
FILES:${PN}-eap-tls += "\
    ${nonarch_libdir}/firstboot/start-networks \
    ${nonarch_libdir}/systemd/system/firstboot-enroll.service.d \
    ${nonarch_libdir}/systemd/system/firstboot-renew.service.d \
    ${nonarch_libdir}/systemd/system/firstboot-network.* \
    ${nonarch_libdir}/systemd/system/wpa_supplicant* \
    ${nonarch_libdir}/tmpfiles.d/firstboot-eap-tls.conf \
"
FILES:${PN}-fish-completion += "${datadir}/fish"
FILES:${PN}-zsh-completion += "${datadir}/zsh"

# tpm2-pkcs11 is the PKCS#11 module and libtss2-tcti-device the way to the kernel's driver: both are
# loaded with dlopen. tpm2-tss has the udev rule and the group for /dev/tpmrm0. dosfstools:
# firstboot-fsck@.service repairs the boot partition after a power cut.
RDEPENDS:${PN} = "dosfstools libtss2-tcti-device tpm2-pkcs11 tpm2-tss"
# Networks that ask who the device is: wpa_supplicant, and OpenSSL's way to the key.
RDEPENDS:${PN}-eap-tls = "${PN} pkcs11-provider wpa-supplicant"
