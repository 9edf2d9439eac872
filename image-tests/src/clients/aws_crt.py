"""Connects to the IoT data endpoint as the nucleus does (aws-crt, PKCS#11), and publishes one message.

Arguments: module, slot, key label, PIN file, certificate (PEM), root CA, port, client ID, topic.
"""

import sys

from awscrt import io, mqtt

module, slot, label, pin_file, certificate, root_ca, port, client_id, topic = sys.argv[1:]
with open(pin_file) as file:
    pin = file.read().strip()

options = io.TlsContextOptions.create_client_with_mtls_pkcs11(
    pkcs11_lib=io.Pkcs11Lib(file=module),
    user_pin=pin,
    slot_id=int(slot),
    token_label=None,
    private_key_label=label,
    cert_file_path=certificate,
)
options.override_default_trust_store_from_path(ca_filepath=root_ca)
client = mqtt.Client(io.ClientBootstrap(io.EventLoopGroup(1), io.DefaultHostResolver(io.EventLoopGroup(1))),
                     io.ClientTlsContext(options))
connection = mqtt.Connection(client, host_name="localhost", port=int(port), client_id=client_id)
connection.connect().result(60)
published, _ = connection.publish(topic, "born in the TPM", mqtt.QoS.AT_LEAST_ONCE)
published.result(60)
connection.disconnect().result(60)
