/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console device: virtio 1.2 section 5.3. One port (no MULTIPORT): receiveq 0
 * carries the keyboard to the guest, transmitq 1 the guest's output. SIZE is
 * offered when the host's end is a terminal; EMERG_WRITE always, so that a
 * dying kernel can still speak without rings.
 *
 * A device with one port is not told when the port is open. Linux' driver gives
 * its receive buffers first and takes the port into its list last, and throws
 * away every key that arrives in between; of the window's size it hears only
 * when that changes later. So both are held back: until console_listen(), or
 * until the guest has printed something and then nothing for a while, or for
 * HOLD_LOOKS at the most.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/devices.h"
#include "vmm/bytes.h"
#include "vmm/timeline.h"

/* Section 5.3.3. */
#define F_SIZE 0
#define F_EMERG_WRITE 2

#define RXQ 0
#define TXQ 1
#define QUEUE_SIZE 128

/*
 * What one call works off before the loop's other devices have their turn. A
 * chain may name up to 4 GiB, and the guest may add chains as fast as they
 * are taken: both are bounded here.
 */
#define TURN_BYTES (64u << 10)
#define TURN_CHAINS 64

#define INPUT_MAX 4096 /* keys kept until the driver gives buffers and listens */

/* How often it is looked whether the guest has fallen silent, and how many times: five seconds. */
#define HOLD_NS 100000000ull
#define HOLD_LOOKS 50

/* Section 5.3.4. */
struct console_config {
	uint16_t cols, rows;
	uint32_t max_nr_ports;
	uint32_t emerg_wr;
};

struct console {
	struct virtio v;
	struct chr *chr;
	struct bytes keys;
	struct vq_chain *out; /* taken from transmitq and not written to its end yet */
	bool listening;       /* the guest is taken to be: keys go to it at once */
	struct loop_timer hold;
	unsigned looks;
	uint64_t said, seen; /* bytes since it was started: now, and at the last look */
};

static struct console *of(struct virtio *v)
{
	return (struct console *)((char *)v - offsetof(struct console, v));
}

static void console_say(struct console *c, const uint8_t *buf, size_t n)
{
	if (!c->said)
		timeline_mark(STAGE_CONSOLE);
	c->said += n;
	chr_write(c->chr, buf, n);
}

/* ------------------------------------------------------------- the guest's output */

/* Writes at most @max bytes of the chain in hand, and returns it at its end. */
static uint32_t tx_some(struct console *c, uint32_t max)
{
	uint8_t buf[4096];
	uint32_t done = 0;

	while (c->out->readable && done < max) {
		uint32_t n = c->out->readable < sizeof(buf) ? c->out->readable : sizeof(buf);

		if (n > max - done)
			n = max - done;
		if (chain_pull(c->out, buf, n))
			goto give_back;
		console_say(c, buf, n);
		done += n;
	}
	if (c->out->readable)
		return done;
give_back:
	vq_return(c->out);
	c->out = NULL;
	return done;
}

static void console_tx(struct console *c)
{
	struct vq *q = virtio_vq(&c->v, TXQ);
	unsigned chains = 0;
	uint32_t bytes = 0;

	vq_kicks_off(q);
	do {
		while (bytes < TURN_BYTES && chains < TURN_CHAINS &&
		       (c->out || vq_next(q, &c->out) == VQ_CHAIN)) {
			bytes += tx_some(c, TURN_BYTES - bytes);
			chains++;
		}
		if (bytes == TURN_BYTES || chains == TURN_CHAINS) {
			virtio_rekick(&c->v, TXQ);
			break;
		}
	} while (vq_kicks_on(q));
	vq_notify(q);
}

/* ------------------------------------------------------------- the keyboard */

static void rx_one(struct console *c, struct vq_chain *chain)
{
	const uint8_t *p;
	size_t n;

	while (chain->writable && (n = bytes_peek(&c->keys, &p))) {
		if (n > chain->writable)
			n = chain->writable;
		if (chain_push(chain, p, (uint32_t)n))
			break;
		bytes_drop(&c->keys, n);
	}
	vq_return(chain);
}

static void console_rx(struct console *c)
{
	struct vq *q = virtio_vq(&c->v, RXQ);
	bool full = !bytes_room(&c->keys);
	struct vq_chain *chain;
	unsigned chains = 0;

	if (!vq_live(q))
		return;
	/* Buffers are of interest only while a key waits for one. */
	vq_kicks_off(q);
	while (c->listening && c->keys.len) {
		while (c->keys.len && chains < TURN_CHAINS && vq_next(q, &chain) == VQ_CHAIN) {
			rx_one(c, chain);
			chains++;
		}
		if (chains == TURN_CHAINS) {
			virtio_rekick(&c->v, RXQ);
			break;
		}
		if (c->keys.len && !vq_kicks_on(q))
			break;
	}
	vq_notify(q);
	if (full && bytes_room(&c->keys))
		chr_room(c->chr);
}

void console_listen(struct console *c)
{
	if (c->listening || !c->v.running)
		return;
	loop_timer_cancel(&c->hold);
	c->listening = true;
	/* The driver does not look at the size that was there first before it is told of a change.
	 */
	if (virtio_has(&c->v, F_SIZE))
		virtio_config_changed(&c->v);
	virtio_rekick(&c->v, RXQ);
}

static void console_look(void *arg)
{
	struct console *c = arg;

	if (++c->looks == HOLD_LOOKS || (c->said && c->said == c->seen)) {
		console_listen(c);
		return;
	}
	c->seen = c->said;
	loop_timer_set(c->v.loop, &c->hold, loop_now() + HOLD_NS);
}

static size_t console_room(void *arg)
{
	return bytes_room(&((struct console *)arg)->keys);
}

static void console_input(void *arg, const uint8_t *buf, size_t n)
{
	struct console *c = arg;

	bytes_put(&c->keys, buf, n);
	if (c->v.running)
		console_rx(c);
}

/* ------------------------------------------------------------- the device */

static void console_put_size(struct console *c, uint16_t cols, uint16_t rows)
{
	struct console_config cfg = {.cols = htole16(cols), .rows = htole16(rows)};

	memcpy(c->v.config, &cfg, sizeof(cfg));
}

static void console_resize(void *arg, uint16_t cols, uint16_t rows)
{
	struct console *c = arg;

	if (!(c->v.offered & (1ull << F_SIZE)))
		return;
	console_put_size(c, cols, rows);
	virtio_config_changed(&c->v);
}

/* Section 5.3.4: emerg_wr takes a character at any time, before DRIVER_OK too. */
static void console_config_write(struct virtio *v, unsigned off, unsigned size, uint64_t val)
{
	uint8_t byte = (uint8_t)val;

	(void)size;
	if (off == offsetof(struct console_config, emerg_wr))
		console_say(of(v), &byte, 1);
}

static void console_kick(struct virtio *v, unsigned q)
{
	if (q == TXQ)
		console_tx(of(v));
	else
		console_rx(of(v));
}

static int console_queue_start(struct virtio *v, unsigned q)
{
	/* Keys that wait. virtio_kick ignores a queue that is not live, so the turn is taken later,
	 * when the device runs. */
	if (q == RXQ)
		virtio_rekick(v, q);
	return 0;
}

static void console_queue_stop(struct virtio *v, unsigned q)
{
	struct console *c = of(v);

	if (q == TXQ && c->out) {
		vq_return(c->out);
		c->out = NULL;
	}
}

static int console_start(struct virtio *v)
{
	struct console *c = of(v);

	c->said = c->seen = c->looks = 0;
	loop_timer_set(v->loop, &c->hold, loop_now() + HOLD_NS);
	return console_queue_start(v, RXQ);
}

static void console_stop(struct virtio *v)
{
	struct console *c = of(v);

	loop_timer_cancel(&c->hold);
	c->listening = false;
	console_queue_stop(v, TXQ);
}

static void console_virtio_free(struct virtio *v)
{
	console_free(of(v));
}

static const struct virtio_ops console_ops = {
	.id = VIRTIO_ID_CONSOLE,
	.start = console_start,
	.stop = console_stop,
	.queue_start = console_queue_start,
	.queue_stop = console_queue_stop,
	.kick = console_kick,
	.config_write = console_config_write,
	.free = console_virtio_free,
};

int console_new(struct console **ret, struct gmem *gm, struct loop *l, struct chr *chr,
		struct err *e)
{
	struct console *c = calloc(1, sizeof(*c));
	uint16_t cols = 0, rows = 0;
	int rc;

	if (!c)
		return err_msg(e, -ENOMEM, "console: out of memory");
	c->keys.cap = INPUT_MAX;
	c->hold = (struct loop_timer){.fn = console_look, .arg = c};
	c->v.offered = 1ull << F_EMERG_WRITE;
	if (chr_size(chr, &cols, &rows))
		c->v.offered |= 1ull << F_SIZE;
	console_put_size(c, cols, rows);
	c->v.config_len = sizeof(struct console_config);
	rc = virtio_init(&c->v, &console_ops, "console", gm, l);
	for (int i = 0; !rc && i <= TXQ; i++)
		rc = virtio_add_queue(&c->v, QUEUE_SIZE);
	if (rc) {
		console_free(c);
		return err_msg(e, rc, "console: %s", strerror(-rc));
	}
	c->chr = chr;
	chr_bind(chr, &(struct chr_user){.room = console_room,
					 .input = console_input,
					 .resize = console_resize,
					 .dev = c});
	*ret = c;
	return 0;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	if (c->chr)
		chr_bind(c->chr, NULL);
	virtio_fini(&c->v);
	bytes_fini(&c->keys);
	free(c);
}

struct virtio *console_virtio(struct console *c)
{
	return &c->v;
}
