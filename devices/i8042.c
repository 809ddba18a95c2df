/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keyboard controller (Intel 8042 as in the IBM PC/AT) with nothing attached.
 * It is here for the machine's reset line and so that probing ends soon: every
 * command that software waits on has its answer ready at once, and those that
 * ask for a keyboard or mouse say that there is none:
 *
 *  - the port tests (0xA9, 0xAB) report a stuck clock line;
 *  - the auxiliary loop-back (0xD3) answers without the auxiliary bit, which
 *    Linux takes for "no such port", and the mouse port cannot be enabled;
 *  - a byte for a device is answered with 0xFE and the time-out bit.
 *
 * There is no interrupt, so drivers that believe the FADT do not probe at all.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/layout.h"

#define PORT_DATA LAYOUT_PORT_I8042
#define PORT_CMD (LAYOUT_PORT_I8042 + 4)

#define STS_OBF 0x01 /* an answer waits at the data port */
#define STS_SYS 0x04 /* the self test was passed */
#define STS_A2 0x08  /* the last byte written was a command */
#define STS_UNLOCKED 0x10
#define STS_TIMEOUT 0x40

#define CTR_SYS 0x04
#define CTR_KBD_OFF 0x10
#define CTR_AUX_OFF 0x20
#define CTR_XLATE 0x40

#define CMD_READ_RAM 0x20 /* byte 0 is the command byte (CTR) */
#define CMD_READ_RAM_LAST 0x3f
#define CMD_WRITE_RAM 0x60
#define CMD_WRITE_RAM_LAST 0x7f
#define CMD_AUX_TEST 0xa9
#define CMD_SELF_TEST 0xaa
#define CMD_KBD_TEST 0xab
#define CMD_KBD_OFF 0xad
#define CMD_KBD_ON 0xae
#define CMD_READ_INPUT 0xc0
#define CMD_READ_OUTPUT 0xd0
#define CMD_WRITE_OUTPUT 0xd1
#define CMD_KBD_LOOP 0xd2
#define CMD_AUX_LOOP 0xd3
#define CMD_AUX_SEND 0xd4
#define CMD_TEST_PINS 0xe0
#define CMD_PULSE 0xf0 /* a zero bit pulses that output low */
#define CMD_PULSE_LAST 0xff

#define OUT_NOT_RESET 0x01 /* output port; low resets the processor */
#define OUT_A20 0x02

#define ANSWER_PASSED 0x55
#define ANSWER_CLOCK_LOW 0x01
#define ANSWER_RESEND 0xfe

#define RAM_BYTES 32u

struct i8042 {
	struct bus *pio;
	struct power_sink power;
	uint8_t ram[RAM_BYTES]; /* [0]: the command byte */
	uint8_t out;            /* the data port's byte */
	uint8_t status;
	uint8_t cmd; /* waits for its parameter; 0: none */
};

static void i8042_answer(struct i8042 *d, uint8_t val, uint8_t flags)
{
	d->out = val;
	d->status = (uint8_t)((d->status & ~STS_TIMEOUT) | STS_OBF | flags);
}

static void i8042_set_ram(struct i8042 *d, unsigned at, uint8_t val)
{
	if (at == 0)
		val |= CTR_AUX_OFF;
	d->ram[at] = val;
}

static void i8042_outputs(struct i8042 *d, uint8_t val)
{
	if (!(val & OUT_NOT_RESET))
		power_report(&d->power, POWER_RESET);
}

static void i8042_command(struct i8042 *d, uint8_t cmd)
{
	d->status |= STS_A2;
	d->cmd = 0;
	switch (cmd) {
	case CMD_READ_RAM ... CMD_READ_RAM_LAST:
		i8042_answer(d, d->ram[cmd % RAM_BYTES], 0);
		break;
	case CMD_SELF_TEST:
		i8042_answer(d, ANSWER_PASSED, 0);
		break;
	case CMD_KBD_TEST:
	case CMD_AUX_TEST:
		i8042_answer(d, ANSWER_CLOCK_LOW, 0);
		break;
	case CMD_KBD_OFF:
		d->ram[0] |= CTR_KBD_OFF;
		break;
	case CMD_KBD_ON:
		d->ram[0] &= (uint8_t)~CTR_KBD_OFF;
		break;
	case CMD_READ_INPUT:
		i8042_answer(d, 0x80, 0); /* the keyboard is not locked */
		break;
	case CMD_READ_OUTPUT:
		i8042_answer(d, OUT_A20 | OUT_NOT_RESET, 0);
		break;
	case CMD_TEST_PINS:
		i8042_answer(d, 0, 0);
		break;
	case CMD_PULSE ... CMD_PULSE_LAST:
		i8042_outputs(d, cmd);
		break;
	default:
		d->cmd = cmd; /* its parameter follows; i8042_data knows which have one */
	}
}

static void i8042_data(struct i8042 *d, uint8_t val)
{
	uint8_t cmd = d->cmd;

	d->status &= (uint8_t)~STS_A2;
	d->cmd = 0;
	switch (cmd) {
	case CMD_WRITE_RAM ... CMD_WRITE_RAM_LAST:
		i8042_set_ram(d, cmd % RAM_BYTES, val);
		break;
	case CMD_WRITE_OUTPUT:
		i8042_outputs(d, val);
		break;
	case CMD_KBD_LOOP:
	case CMD_AUX_LOOP:
		i8042_answer(d, val, 0);
		break;
	default: /* CMD_AUX_SEND, or for the keyboard */
		i8042_answer(d, ANSWER_RESEND, STS_TIMEOUT);
	}
}

/* Each port is a region of its own, one byte wide: 0x61 between them belongs to the PIT. */
static uint64_t i8042_read_data(void *dev, uint64_t off, unsigned size)
{
	struct i8042 *d = dev;

	(void)off;
	(void)size;
	d->status &= (uint8_t) ~(STS_OBF | STS_TIMEOUT);
	return d->out;
}

static void i8042_write_data(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)off;
	(void)size;
	i8042_data(dev, (uint8_t)val);
}

static uint64_t i8042_read_status(void *dev, uint64_t off, unsigned size)
{
	const struct i8042 *d = dev;

	(void)off;
	(void)size;
	return d->status;
}

static void i8042_write_cmd(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)off;
	(void)size;
	i8042_command(dev, (uint8_t)val);
}

static const struct bus_ops data_ops = {.read = i8042_read_data, .write = i8042_write_data};
static const struct bus_ops cmd_ops = {.read = i8042_read_status, .write = i8042_write_cmd};

int i8042_new(struct i8042 **ret, struct bus *pio, struct loop *l, const struct power_sink *p,
	      struct err *e)
{
	struct i8042 *d = calloc(1, sizeof(*d));

	if (!d)
		return err_msg(e, -ENOMEM, "i8042: out of memory");
	d->pio = pio;
	d->power = *p;
	d->ram[0] = CTR_SYS | CTR_KBD_OFF | CTR_AUX_OFF | CTR_XLATE;
	d->status = STS_SYS | STS_UNLOCKED;

	struct bus_region r = {
		.base = PORT_DATA,
		.size = 1,
		.ops = &data_ops,
		.dev = d,
		.loop = l,
		.name = "i8042 data",
	};
	int rc = bus_add(pio, &r, e);
	if (rc == 0) {
		r.base = PORT_CMD;
		r.ops = &cmd_ops;
		r.name = "i8042 command";
		rc = bus_add(pio, &r, e);
		if (rc < 0)
			bus_del(pio, PORT_DATA);
	}
	if (rc < 0) {
		free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void i8042_free(struct i8042 *d)
{
	if (!d)
		return;
	bus_del(d->pio, PORT_DATA);
	bus_del(d->pio, PORT_CMD);
	free(d);
}
