/* Makes mosquitto behave as AWS IoT Core: asks the double (link.rs) about every CONNECT, SUBSCRIBE and PUBLISH, and
 * waits for its answer. So a certificate becomes active from one packet to the next, and an answer goes out on the
 * connection that the request came in on, to nobody else.
 *
 * Each question and each answer are one frame each on a Unix socket; link.rs has the layout.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/x509.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

enum verdict { GO_ON = 0, REFUSE = 1, CLOSE = 2 };

static int link_fd = -1;
static mosquitto_plugin_id_t *self;

static bool put(const void *bytes, size_t count) {
	const char *at = bytes;
	while (count > 0) {
		ssize_t done = send(link_fd, at, count, MSG_NOSIGNAL);
		if (done <= 0) return false;
		at += done;
		count -= (size_t)done;
	}
	return true;
}

static bool get(void *bytes, size_t count) {
	char *at = bytes;
	while (count > 0) {
		ssize_t done = read(link_fd, at, count);
		if (done <= 0) return false;
		at += done;
		count -= (size_t)done;
	}
	return true;
}

static bool put_field(const void *bytes, uint32_t count) {
	return put(&count, sizeof count) && put(bytes, count);
}

/* A field in memory of its own, with a zero after it; the caller frees it. */
static char *get_field(uint32_t *count) {
	if (!get(count, sizeof *count)) return NULL;
	char *field = calloc(1, (size_t)*count + 1);
	if (field && !get(field, *count)) {
		free(field);
		return NULL;
	}
	return field;
}

/* One thing to do: 'P' publishes to one client, whatever it has subscribed to. */
static bool act(void) {
	char what;
	uint32_t size, client_size, topic_size;
	if (!get(&what, 1)) return false;
	char *client = get_field(&client_size), *topic = get_field(&topic_size), *payload = get_field(&size);
	bool whole = client && topic && payload;
	if (whole && what == 'P')
		mosquitto_broker_publish_copy(client, topic, (int)size, payload, 1, false, NULL);
	free(client);
	free(topic);
	free(payload);
	return whole;
}

/* Asks the double. If nobody answers, nothing is allowed. */
static enum verdict ask(char kind, const struct mosquitto *client, char access, const char *topic, const void *payload,
		uint32_t size) {
	uint8_t verdict;
	uint32_t actions;
	unsigned char *der = NULL;
	int der_size = 0;
	const char *id = client ? mosquitto_client_id(client) : NULL;
	X509 *certificate = client && kind != 'D' ? mosquitto_client_certificate(client) : NULL;
	if (certificate) {
		der_size = i2d_X509(certificate, &der);
		X509_free(certificate);
	}
	if (der_size < 0) der_size = 0;
	bool asked = put(&kind, 1) && put(&access, 1) && put_field(id ? id : "", id ? (uint32_t)strlen(id) : 0)
		&& put_field(der, (uint32_t)der_size) && put_field(topic, (uint32_t)strlen(topic)) && put_field(payload, size);
	OPENSSL_free(der);
	if (!asked || !get(&verdict, sizeof verdict) || !get(&actions, sizeof actions)) return CLOSE;
	while (actions-- > 0)
		if (!act()) return CLOSE;
	return verdict;
}

static int on_connect(int event, void *data, void *unused) {
	struct mosquitto_evt_basic_auth *connect = data;
	(void)event, (void)unused;
	switch (ask('C', connect->client, 0, "", "", 0)) {
	case GO_ON: return MOSQ_ERR_SUCCESS;
	case REFUSE: return MOSQ_ERR_AUTH;       /* CONNACK "not authorized" */
	default: return MOSQ_ERR_CONN_REFUSED;   /* closed without a CONNACK */
	}
}

static int on_access(int event, void *data, void *unused) {
	struct mosquitto_evt_acl_check *access = data;
	(void)event, (void)unused;
	if (access->access != MOSQ_ACL_WRITE && access->access != MOSQ_ACL_SUBSCRIBE) return MOSQ_ERR_SUCCESS;
	char kind = access->access == MOSQ_ACL_WRITE ? 'w' : 's';
	switch (ask('A', access->client, kind, access->topic, "", 0)) {
	case GO_ON: return MOSQ_ERR_SUCCESS;
	case REFUSE: return MOSQ_ERR_ACL_DENIED; /* SUBACK 0x80; a PUBLISH is acknowledged and dropped */
	default: return MOSQ_ERR_CONN_REFUSED;   /* closed */
	}
}

static int on_message(int event, void *data, void *unused) {
	struct mosquitto_evt_message *message = data;
	(void)event, (void)unused;
	enum verdict verdict = ask('M', message->client, 0, message->topic, message->payload, message->payloadlen);
	return verdict == GO_ON ? MOSQ_ERR_SUCCESS : MOSQ_ERR_CONN_REFUSED;
}

static int on_disconnect(int event, void *data, void *unused) {
	struct mosquitto_evt_disconnect *disconnect = data;
	(void)event, (void)unused;
	ask('D', disconnect->client, 0, "", "", 0);
	return MOSQ_ERR_SUCCESS;
}

static int on_tick(int event, void *data, void *unused) {
	(void)event, (void)data, (void)unused;
	ask('T', NULL, 0, "", "", 0);
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_version(int count, const int *versions) {
	for (int i = 0; i < count; i++)
		if (versions[i] == 5) return 5;
	return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **data, struct mosquitto_opt *options, int count) {
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)data;
	self = id;
	for (int i = 0; i < count; i++)
		if (!strcmp(options[i].key, "link")) strncpy(address.sun_path, options[i].value, sizeof address.sun_path - 1);
	link_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (link_fd < 0 || connect(link_fd, (struct sockaddr *)&address, sizeof address)) return MOSQ_ERR_ERRNO;
	if (mosquitto_callback_register(id, MOSQ_EVT_BASIC_AUTH, on_connect, NULL, NULL)
		|| mosquitto_callback_register(id, MOSQ_EVT_ACL_CHECK, on_access, NULL, NULL)
		|| mosquitto_callback_register(id, MOSQ_EVT_MESSAGE, on_message, NULL, NULL)
		|| mosquitto_callback_register(id, MOSQ_EVT_DISCONNECT, on_disconnect, NULL, NULL)
		|| mosquitto_callback_register(id, MOSQ_EVT_TICK, on_tick, NULL, NULL))
		return MOSQ_ERR_UNKNOWN;
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *data, struct mosquitto_opt *options, int count) {
	(void)data, (void)options, (void)count;
	mosquitto_callback_unregister(self, MOSQ_EVT_BASIC_AUTH, on_connect, NULL);
	mosquitto_callback_unregister(self, MOSQ_EVT_ACL_CHECK, on_access, NULL);
	mosquitto_callback_unregister(self, MOSQ_EVT_MESSAGE, on_message, NULL);
	mosquitto_callback_unregister(self, MOSQ_EVT_DISCONNECT, on_disconnect, NULL);
	mosquitto_callback_unregister(self, MOSQ_EVT_TICK, on_tick, NULL);
	close(link_fd);
	return MOSQ_ERR_SUCCESS;
}
