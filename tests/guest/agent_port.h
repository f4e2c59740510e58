/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose agent is up, as far as the hypervisor can tell: it opens the first port of a virtio-serial device.
 * Nothing is ever read or written there; tests play the agent on the socket at the other end.
 *
 * Source: Virtual I/O Device 1.1, 5.3 (console device). The device's own messages find no buffer and are dropped.
 * Included by guest.c after scsi.h, whose names it uses.
 */

enum {
    CONTROL_QUEUE = 3, /* to the device, with MULTIPORT */
    MULTIPORT = 2,
    FIRST_PORT = 1, /* port 0 is for a console */
    DEVICE_READY = 0,
    PORT_READY = 3,
    PORT_OPEN = 6,
};

static const uint32_t VIRTIO_CONSOLE = 0x10031AF4;

struct control {
    uint32_t port;
    uint16_t event, value;
};

static uint8_t control_ring[RING_BYTES] __attribute__((aligned(4096)));
static struct control controls[] = {
    {~0U, DEVICE_READY, 1}, {FIRST_PORT, PORT_READY, 1}, {FIRST_PORT, PORT_OPEN, 1}};

static void open_port(uint16_t port)
{
    struct descriptor *descriptors = (struct descriptor *)control_ring;
    outb(port + DEVICE_STATUS, 0);
    outb(port + DEVICE_STATUS, 1 | 2);
    outl(port + GUEST_FEATURES, MULTIPORT);
    outw(port + QUEUE_SELECT, CONTROL_QUEUE);
    uint16_t size = inw(port + QUEUE_SIZE);
    if (size == 0 || size > QUEUE_MAX)
        return;
    outl(port + QUEUE_ADDRESS, (uint32_t)control_ring / PAGE);
    outb(port + DEVICE_STATUS, 1 | 2 | 4);
    volatile uint16_t *available = (volatile uint16_t *)(control_ring + 16U * size);
    for (unsigned i = 0; i < sizeof controls / sizeof *controls; i++) {
        descriptors[i] = (struct descriptor){(uint32_t)&controls[i], sizeof controls[i], 0, 0};
        available[2 + i] = (uint16_t)i;
        __asm__ volatile("" : : : "memory");
        available[1]++;
        outw(port + QUEUE_NOTIFY, CONTROL_QUEUE);
    }
}

static void find_agent_port(void)
{
    for (uint32_t slot = 0; slot < 32; slot++) {
        if (pci_read(slot, 0, 0x00) != VIRTIO_CONSOLE)
            continue;
        uint32_t command = pci_read(slot, 0, 0x04);
        outl(PCI_DATA, command | 1 | 4); /* I/O space and bus mastering on */
        open_port((uint16_t)(pci_read(slot, 0, 0x10) & ~3U));
    }
}
