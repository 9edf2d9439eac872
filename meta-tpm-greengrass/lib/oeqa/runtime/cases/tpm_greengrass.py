#
# SPDX-License-Identifier: MIT
#
"""testimage: an unprovisioned device has booted once (MACHINE_FEATURES has tpm-swtpm). It has its
identity, waits for its certificate, and does not make a second identity."""

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

REQUESTS = "/boot/firstboot/requests"
WAITING = 75


class TpmGreengrassTest(OERuntimeTestCase):
    def run_on_target(self, command, expected=0):
        """Runs a command, which has to exit with the expected status. Returns its output."""
        status, output = self.target.run(command)
        self.assertEqual(status, expected, msg=f"{command}: {output}")
        return output

    @OEHasPackage(["firstboot"])
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    def test_first_boot_made_the_identity(self):
        self.run_on_target("systemctl show -p Result --value firstboot.service | grep -qx success")
        self.run_on_target("test -r /var/lib/tpm2_pkcs11/tpm2_pkcs11.sqlite3")

    @OETestDepends(["tpm_greengrass.TpmGreengrassTest.test_first_boot_made_the_identity"])
    def test_the_request_is_on_the_boot_partition_and_signed(self):
        self.run_on_target(f"openssl req -verify -noout -in {REQUESTS}/*.csr.pem")

    @OETestDepends(["tpm_greengrass.TpmGreengrassTest.test_first_boot_made_the_identity"])
    def test_greengrass_waits_for_the_certificate(self):
        self.run_on_target("firstboot enroll", expected=WAITING)
        self.run_on_target("! systemctl is-active greengrass.service ggl.core.ggconfigd.service")

    @OETestDepends(["tpm_greengrass.TpmGreengrassTest.test_first_boot_made_the_identity"])
    def test_a_second_start_changes_nothing(self):
        request = self.run_on_target(f"sha256sum {REQUESTS}/*")
        self.run_on_target("systemctl restart firstboot.service")
        self.assertEqual(request, self.run_on_target(f"sha256sum {REQUESTS}/*"))

    @OETestDepends(["tpm_greengrass.TpmGreengrassTest.test_first_boot_made_the_identity"])
    def test_status_is_json(self):
        json.loads(self.run_on_target("firstboot status --json"))

    @OEHasPackage(["firstboot"])
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    def test_no_module_is_asked_for_that_the_kernel_has_built_in(self):
        self.run_on_target("! systemctl is-failed --quiet systemd-modules-load.service")

    @OEHasPackage(["greengrass-bin"])
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    def test_no_shared_pin_is_in_the_image(self):
        self.run_on_target("! grep -q userPin /greengrass/v2/config/config.yaml")

    @OEHasPackage(["greengrass-lite"])
    @OETestDepends(["tpm_greengrass.TpmGreengrassTest.test_first_boot_made_the_identity"])
    def test_components_cannot_read_the_pin(self):
        """The last file that ggconfigd reads says as whom they run."""
        self.run_on_target("grep -q 'posixUser.*gg_component:gg_component' /etc/greengrass/config.d/greengrass-lite.yaml")
        pin = "/var/lib/tpm2_pkcs11/pin"
        # The PIN is there, and the user can run programs; otherwise the last line would prove nothing.
        self.run_on_target(f"test -s {pin} && systemd-run --quiet --wait --uid=gg_component true")
        self.run_on_target(f"! systemd-run --quiet --wait --uid=gg_component cat {pin}")
