/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A. Register names and section numbers are those of National
 * Semiconductor's PC16550D data sheet (June 1995), section 8.
 *
 * A transmitted byte is gone at once, so the transmitter is always empty. The
 * receive FIFO is bounded by the 16 bytes of the chip: what the host has beyond
 * that stays with the host (serial_room).
 *
 * The line is an edge. The driver's handler reads IIR until nothing is
 * pending, so an edge is due whenever a condition that its IER bit lets through
 * becomes pending which was not before, however many others are pending still.
 *
 * A driver that opens the port clears the FIFO, and with it what somebody typed or
 * piped in before. With serial_env's hold the host keeps its bytes until
 * serial_listen(), or until the receive interrupt is enabled and the guest has
 * printed something and then nothing for a while, or has been for HOLD_LOOKS, or
 * for HOLD_MAX whatever it does: it may poll.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#include "devices/bytewise.h"
#include "vmm/layout.h"
#include "vmm/timeline.h"

#define FIFO_SIZE 16u

/* How often it is looked whether the guest listens, and how many times: 5 s, a minute. */
#define HOLD_NS 100000000ull
#define HOLD_LOOKS 50
#define HOLD_MAX 600

enum { /* offsets; with LCR_DLAB 0 and 1 are the divisor's bytes */
       REG_RBR_THR = 0,
       REG_IER = 1,
       REG_IIR_FCR = 2,
       REG_LCR = 3,
       REG_MCR = 4,
       REG_LSR = 5,
       REG_MSR = 6,
       REG_SCR = 7,
       REGS = 8,
};

#define IER_RDI 0x01  /* received data */
#define IER_THRI 0x02 /* transmitter empty */
#define IER_RLSI 0x04 /* line status */
#define IER_MSI 0x08  /* modem status */
#define IER_MASK 0x0f

#define IIR_NONE 0x01
#define IIR_MSI 0x00
#define IIR_THRI 0x02
#define IIR_RDI 0x04
#define IIR_RLSI 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0

#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_TRIGGER_SHIFT 6

#define LCR_DLAB 0x80

#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_MASK 0x1f

#define LSR_DR 0x01
#define LSR_OE 0x02
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

#define MSR_TERI 0x04 /* the only delta that counts one direction: the ring's trailing edge */
#define MSR_DELTAS 0x0f
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

struct serial {
	struct bus *pio;
	struct irq *irq;
	struct chr *chr;

	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr, dll, dlm;
	bool thr_pending; /* the transmitter-empty interrupt was not acknowledged yet */
	uint8_t raised;   /* conditions (IER bits) for which an edge was sent */
	uint64_t said;    /* bytes */

	bool held; /* input is */
	struct loop *loop;
	struct loop_timer hold;
	unsigned looks, ready; /* looks in all, and with the interrupt enabled */
	uint64_t seen;         /* said at the last look */

	uint8_t fifo[FIFO_SIZE];
	unsigned head, count; /* head < FIFO_SIZE, count <= serial_depth() */
};

static unsigned serial_depth(const struct serial *s)
{
	return s->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned serial_trigger(const struct serial *s)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return s->fcr & FCR_ENABLE ? level[s->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

/* The conditions that hold and are let through, as IER bits. */
static uint8_t serial_pending(const struct serial *s)
{
	uint8_t p = 0;

	if (s->lsr & LSR_OE)
		p |= IER_RLSI;
	if (s->count)
		p |= IER_RDI;
	if (s->thr_pending)
		p |= IER_THRI;
	if (s->msr & MSR_DELTAS)
		p |= IER_MSI;
	return p & s->ier;
}

static void serial_update(struct serial *s)
{
	uint8_t p = serial_pending(s);

	if (p & ~s->raised)
		irq_raise(s->irq);
	s->raised = p;
}

/* ---------------------------------------------------------- receiver */

static void serial_receive(struct serial *s, uint8_t byte)
{
	if (s->count == serial_depth(s)) {
		/* 8.6.3: with FIFOs the new byte is lost, without them the old one. */
		s->lsr |= LSR_OE;
		if (!(s->fcr & FCR_ENABLE))
			s->fifo[s->head] = byte;
		return;
	}
	s->fifo[(s->head + s->count++) % FIFO_SIZE] = byte;
}

static size_t serial_room(void *dev)
{
	const struct serial *s = dev;

	/* 8.6.7: in loopback the input pin is disconnected. */
	if (s->held || s->mcr & MCR_LOOP)
		return 0;
	return serial_depth(s) - s->count;
}

static void serial_input(void *dev, const uint8_t *buf, size_t n)
{
	struct serial *s = dev;

	for (size_t i = 0; i < n; i++)
		serial_receive(s, buf[i]);
	/* A new edge for every batch, though data may have been pending already: costs nothing. */
	s->raised &= (uint8_t)~IER_RDI;
	serial_update(s);
}

/*
 * The host is asked for more when the FIFO has run empty, not after each byte.
 * Called last: the host may call back at once.
 */
static void serial_drained(struct serial *s)
{
	if (!s->count && !s->held && !(s->mcr & MCR_LOOP))
		chr_room(s->chr);
}

void serial_listen(struct serial *s)
{
	if (!s || !s->held)
		return;
	loop_timer_cancel(&s->hold);
	s->held = false;
	serial_drained(s);
}

static void serial_look(void *arg)
{
	struct serial *s = arg;
	bool silent = s->said && s->said == s->seen;

	s->seen = s->said;
	s->ready += !!(s->ier & IER_RDI);
	if (++s->looks == HOLD_MAX || s->ready == HOLD_LOOKS || (silent && s->ier & IER_RDI))
		serial_listen(s);
	else
		loop_timer_set(s->loop, &s->hold, loop_now() + HOLD_NS);
}

static void serial_flush_rx(struct serial *s)
{
	s->head = s->count = 0;
}

/* ------------------------------------------------------ modem lines */

static void serial_set_mcr(struct serial *s, uint8_t val)
{
	uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD; /* what the host's end always shows */
	uint8_t old = s->msr;

	s->mcr = val & MCR_MASK;
	if (s->mcr & MCR_LOOP)
		lines = (s->mcr & MCR_DTR ? MSR_DSR : 0) | (s->mcr & MCR_RTS ? MSR_CTS : 0) |
			(s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
	uint8_t deltas = (uint8_t)(old ^ lines) >> 4;
	if (lines & MSR_RI)
		deltas &= (uint8_t)~MSR_TERI;
	s->msr = lines | (old & MSR_DELTAS) | deltas;
}

/* ---------------------------------------------------------- registers */

static void serial_transmit(struct serial *s, uint8_t byte)
{
	if (s->mcr & MCR_LOOP) {
		serial_receive(s, byte);
	} else {
		if (!s->said++)
			timeline_mark(STAGE_CONSOLE);
		chr_write(s->chr, &byte, 1);
	}
	s->thr_pending = true; /* empty again */
}

static void serial_set_fcr(struct serial *s, uint8_t val)
{
	/* 8.6.4: switching the FIFOs clears them; the other bits count only while they are on. */
	if ((val ^ s->fcr) & FCR_ENABLE || val & FCR_CLEAR_RX)
		serial_flush_rx(s);
	s->fcr = val & FCR_ENABLE ? val & (FCR_ENABLE | 3u << FCR_TRIGGER_SHIFT) : 0;
}

static void serial_set_ier(struct serial *s, uint8_t val)
{
	/* Enabling the interrupt while the transmitter is empty raises it at once. */
	if (val & ~s->ier & IER_THRI)
		s->thr_pending = true;
	s->ier = val & IER_MASK;
}

/* 8.6.5, table IV: the highest priority alone is shown; reading acknowledges THRE when it is that
 * one. */
static uint8_t serial_read_iir(struct serial *s)
{
	uint8_t p = serial_pending(s), iir = IIR_NONE;

	if (p & IER_RLSI) {
		iir = IIR_RLSI;
	} else if (p & IER_RDI) {
		/* No time passes between bytes: fewer than the trigger is the timeout. */
		iir = s->count >= serial_trigger(s) ? IIR_RDI : IIR_TIMEOUT;
	} else if (p & IER_THRI) {
		iir = IIR_THRI;
		s->thr_pending = false;
	} else if (p & IER_MSI) {
		iir = IIR_MSI;
	}
	return iir | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t serial_read_lsr(struct serial *s)
{
	uint8_t v = s->lsr | LSR_THRE | LSR_TEMT | (s->count ? LSR_DR : 0);

	s->lsr = 0;
	return v;
}

static uint8_t serial_read_msr(struct serial *s)
{
	uint8_t v = s->msr;

	s->msr &= (uint8_t)~MSR_DELTAS;
	return v;
}

static uint8_t serial_read_rbr(struct serial *s)
{
	uint8_t v = s->fifo[s->head];

	if (!s->count)
		return 0;
	s->head = (s->head + 1) % FIFO_SIZE;
	s->count--;
	return v;
}

static uint8_t serial_read_reg(void *dev, unsigned reg)
{
	struct serial *s = dev;
	bool dlab = s->lcr & LCR_DLAB;
	unsigned had = s->count;
	uint8_t v = 0;

	switch (reg) {
	case REG_RBR_THR:
		v = dlab ? s->dll : serial_read_rbr(s);
		break;
	case REG_IER:
		v = dlab ? s->dlm : s->ier;
		break;
	case REG_IIR_FCR:
		v = serial_read_iir(s);
		break;
	case REG_LCR:
		v = s->lcr;
		break;
	case REG_MCR:
		v = s->mcr;
		break;
	case REG_LSR:
		v = serial_read_lsr(s);
		break;
	case REG_MSR:
		v = serial_read_msr(s);
		break;
	case REG_SCR:
		v = s->scr;
		break;
	}
	serial_update(s);
	if (had && !s->count)
		serial_drained(s);
	return v;
}

static void serial_write_reg(void *dev, unsigned reg, uint8_t val)
{
	struct serial *s = dev;
	bool dlab = s->lcr & LCR_DLAB;

	switch (reg) {
	case REG_RBR_THR:
		if (dlab)
			s->dll = val;
		else
			serial_transmit(s, val);
		break;
	case REG_IER:
		if (dlab)
			s->dlm = val;
		else
			serial_set_ier(s, val);
		break;
	case REG_IIR_FCR:
		serial_set_fcr(s, val);
		break;
	case REG_LCR:
		s->lcr = val;
		break;
	case REG_MCR:
		serial_set_mcr(s, val);
		break;
	case REG_SCR:
		s->scr = val;
		break;
	}
	serial_update(s);
	/* Both may have made room: the FIFOs' clearing and the end of loopback. */
	if (reg == REG_IIR_FCR || reg == REG_MCR)
		serial_drained(s);
}

static uint64_t serial_read(void *dev, uint64_t off, unsigned size)
{
	return bytewise_read(serial_read_reg, dev, off, size);
}

static void serial_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	bytewise_write(serial_write_reg, dev, off, size, val);
}

static const struct bus_ops serial_ops = {.read = serial_read, .write = serial_write};

int serial_new(struct serial **ret, struct bus *pio, struct loop *l, const struct serial_env *env,
	       struct err *e)
{
	struct serial *s = calloc(1, sizeof(*s));

	if (!s)
		return err_msg(e, -ENOMEM, "serial: out of memory");
	*s = (struct serial){
		.pio = pio, .irq = env->irq, .chr = env->chr, .loop = l, .held = env->hold};
	s->hold = (struct loop_timer){.fn = serial_look, .arg = s};
	s->dll = 12; /* 9600 baud */
	s->msr = MSR_CTS | MSR_DSR | MSR_DCD;

	struct bus_region r = {
		.base = LAYOUT_PORT_SERIAL,
		.size = REGS,
		.ops = &serial_ops,
		.dev = s,
		.loop = l,
		.name = "serial",
	};
	int rc = bus_add(pio, &r, e);
	if (rc < 0) {
		free(s);
		return rc;
	}
	if (s->held)
		loop_timer_set(l, &s->hold, loop_now() + HOLD_NS);
	chr_bind(s->chr, &(struct chr_user){.room = serial_room, .input = serial_input, .dev = s});
	*ret = s;
	return 0;
}

void serial_free(struct serial *s)
{
	if (!s)
		return;
	loop_timer_cancel(&s->hold);
	chr_bind(s->chr, NULL);
	bus_del(s->pio, LAYOUT_PORT_SERIAL);
	free(s);
}
